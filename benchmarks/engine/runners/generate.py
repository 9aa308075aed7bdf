"""transformers' `generate`: a request at a time in the order of arrival, or all of them as one static batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig
from transformers.generation.streamers import BaseStreamer

from benchmarks.engine.runner import Asked, Options, Runner, main


class Generate:
    """Calls `generate` in batches of at most `batch` requests, padded on the left."""

    cached = 0

    def __init__(self, options: Options, batch: int) -> None:
        torch.set_num_threads(options.threads)
        self._model = AutoModelForCausalLM.from_pretrained(options.folder, dtype=getattr(torch, options.precision))
        self._model.to(options.device).eval()
        self._batch = batch
        self.note = f"attention {self._model.config._attn_implementation}"

    @torch.inference_mode()
    def run(self, asks: list[Asked], submitted: Callable[[int], None], token: Callable[[int], None]) -> None:
        """See `Runner`."""
        for ask in asks:
            submitted(ask.index)
        for i in range(0, len(asks), self._batch):
            self._generate(asks[i : i + self._batch], token)

    def _generate(self, asks: list[Asked], token: Callable[[int], None]) -> None:
        width = max(len(ask.prompt) for ask in asks)
        ids = torch.tensor([[0] * (width - len(ask.prompt)) + ask.prompt for ask in asks])
        mask = torch.tensor([[0] * (width - len(ask.prompt)) + [1] * len(ask.prompt) for ask in asks])
        config = GenerationConfig(
            max_new_tokens=max(ask.tokens for ask in asks), do_sample=False, eos_token_id=None, pad_token_id=0
        )
        device = self._model.device
        self._model.generate(
            ids.to(device),
            attention_mask=mask.to(device),
            generation_config=config,
            streamer=_Stamps([ask.index for ask in asks], token),
        )


class _Stamps(BaseStreamer):
    """Tells of each step of `generate`; the first thing that it is given is the prompt."""

    def __init__(self, indices: list[int], token: Callable[[int], None]) -> None:
        self._indices = indices
        self._token = token
        self._prompt_seen = False

    def put(self, value: Any) -> None:
        """Takes the prompts, then one token of each answer a call."""
        if self._prompt_seen:
            for index in self._indices:
                self._token(index)
        self._prompt_seen = True

    def end(self) -> None:
        """Nothing is left to do."""


def start(options: Options) -> Runner:
    """Loads the model."""
    return Generate(options, batch=1)


if __name__ == "__main__":
    main(start)
