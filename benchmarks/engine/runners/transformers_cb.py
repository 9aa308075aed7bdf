"""transformers' `ContinuousBatchingManager`, with its scaled-dot-product attention."""

from __future__ import annotations

import torch
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig

from benchmarks.engine.runner import Asked, Options, Runner, Stepped, main, step_tokens

_WAIT_S = 300.0
_PAGE = 256  # tokens; its default


class Manager(Stepped):
    """Reads the manager's output queue; the engine steps in a thread of the manager's."""

    def __init__(self, options: Options) -> None:
        torch.set_num_threads(options.threads)
        model = AutoModelForCausalLM.from_pretrained(
            options.folder, dtype=getattr(torch, options.precision), attn_implementation="sdpa"
        ).to(options.device)
        pages = options.sequences * -(-options.context // _PAGE)
        self._manager = model.init_continuous_batching(
            generation_config=GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0),
            continuous_batching_config=ContinuousBatchingConfig(
                page_size=_PAGE,
                num_blocks=pages,
                max_batch_tokens=step_tokens(options),
                max_requests_per_batch=options.sequences,
            ),
        )
        self._manager.start()
        self._round = 0
        self.note = f"attention {model.config._attn_implementation}"

    def submit(self, ask: Asked) -> None:
        """See `Stepped`."""
        self._manager.add_request(
            ask.prompt, request_id=str(ask.index), max_new_tokens=ask.tokens, streaming=True, eos_token_id=-1
        )

    def step(self) -> list[int]:
        """See `Stepped`."""
        output = self._manager.get_result(timeout=_WAIT_S)
        if output is None or output.error:
            raise RuntimeError(f"no output: {output.error if output else 'the manager is silent'}")
        return [int(output.request_id)] if output.generated_tokens else []


def start(options: Options) -> Runner:
    """Loads the model."""
    return Manager(options)


if __name__ == "__main__":
    main(start)
