"""Polyroute's own engine, loaded and stepped as its worker process does."""

from __future__ import annotations

import os

import torch

from benchmarks.engine.runner import Asked, Options, Runner, Stepped, main, step_tokens
from polyroute.backends.local.messages import Load, Rejected
from polyroute.backends.local.worker import compute
from polyroute.backends.local.worker.detokenize import Vocabulary
from polyroute.backends.local.worker.engine import Engine
from polyroute.backends.local.worker.loading import load
from polyroute.backends.local.worker.progress import Reporter
from polyroute.core.request import Sampling


class Ours(Stepped):
    """Steps an `Engine`; end-of-sequence tokens are no end here, so that all answers have their length."""

    def __init__(self, options: Options) -> None:
        torch.set_num_threads(options.threads)
        quantized = options.precision.startswith("int")
        order = Load(
            model="benchmark",
            source=options.folder,
            revision=None,
            device=options.device,
            dtype="auto" if quantized else options.precision,
            trust_remote_code=False,
            cache_dir=options.folder,
            quantization=options.precision if quantized else None,
        )
        loaded = load(order, Reporter(lambda _: None))
        prepared = compute.prepare(loaded.model, quantization=order.quantization)
        self._engine = Engine(
            loaded.model,
            Vocabulary(loaded.tokenizer),
            context_length=loaded.context_length,
            eos=frozenset(),
            defaults=loaded.defaults,
            max_sequences=options.sequences,
            max_batch_tokens=step_tokens(options),
            kv_dtype=prepared.kv_dtype,
            cuda_graphs=os.environ.get("BENCH_EAGER") != "1",
        )
        self._made: dict[int, int] = {}
        eager = self._engine.why_eager
        steps = "by graphs" if self._engine.graphs else f"eager: {eager}" if eager else ""
        self.note = "; ".join(filter(None, (self._engine.path, prepared.words, steps)))

    def submit(self, ask: Asked) -> None:
        """See `Stepped`."""
        refused = self._engine.submit(ask.index, ask.prompt, Sampling(max_tokens=ask.tokens, temperature=0))
        if refused is not None:
            raise RuntimeError(refused.message)

    def step(self) -> list[int]:
        """See `Stepped`."""
        ended: dict[int, int] = {}
        for output in self._engine.step():
            if isinstance(output, Rejected):
                raise RuntimeError(output.message)
            if output.finish is not None:
                ended[output.id] = output.finish.completion_tokens
                self.cached += output.finish.cached_prompt_tokens
        going = self._engine.progress()
        made = [id for id, tokens in (ended | going).items() for _ in range(tokens - self._made.get(id, 0))]
        self._made = going
        return made


def start(options: Options) -> Runner:
    """Loads the model."""
    return Ours(options)


if __name__ == "__main__":
    main(start)
