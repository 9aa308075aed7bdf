"""The way for models whose attention cannot be packed, or that keep other state: each sequence with a cache of its own.

Slower, since every sequence costs a forward pass of its own in each step, and right for whatever `generate` serves.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from transformers import DynamicCache

from polyroute.backends.local.worker.forward.turn import Holder, Turn


class ApartMemory:
    """See `turn.Memory`: `sequence_bytes` each, and `token_bytes` a token.

    Keeps no prefixes, since not every state can be cut.
    """

    def __init__(self, *, sequence_bytes: int, token_bytes: int, limit_bytes: int) -> None:
        self._sequence_bytes = sequence_bytes
        self._token_bytes = token_bytes
        self._limit_bytes = limit_bytes
        self._reserved: dict[int, int] = {}  # tokens, by sequence
        self.caches: dict[int, DynamicCache] = {}

    @property
    def capacity_tokens(self) -> int:
        """The longest sequence that fits when it is alone."""
        return max(1, (self._limit_bytes - self._sequence_bytes) // self._token_bytes)

    @property
    def used_bytes(self) -> int:
        """Memory of all sequences."""
        return len(self._reserved) * self._sequence_bytes + sum(self._reserved.values()) * self._token_bytes

    def reserve(self, sequence: Holder, tokens: int) -> bool:
        """Makes room for `tokens` of the sequence in all; False, and nothing changed, where the cap leaves none."""
        held = self._reserved.get(sequence.id)
        more = (tokens - (held or 0)) * self._token_bytes + (self._sequence_bytes if held is None else 0)
        if more > 0 and self.used_bytes + more > self._limit_bytes:
            return False
        self._reserved[sequence.id] = max(tokens, held or 0)
        return True

    def release(self, sequence: Holder) -> None:
        """Takes the sequence's memory back; nothing where it has none."""
        self._reserved.pop(sequence.id, None)
        self.caches.pop(sequence.id, None)

    def restore(self, sequence: Holder) -> None:
        """Nothing is known of any prefix here."""

    def keep(self, sequence: Holder) -> None:
        """Nothing is kept of any prefix here."""


class ApartForward:
    """See `turn.Forward`. Inputs are prepared as `generate` prepares them, by the model's own code."""

    path = "apart"

    def __init__(self, model: Any, memory: ApartMemory, *, whole_prompts: bool = False) -> None:
        self.whole_prompts = whole_prompts
        self._model = model
        self._cache_name = cache_name(model)
        self.memory = memory
        self._mask = torch.ones((1, 0), dtype=torch.long, device=model.device)
        self._halfway: dict[tuple[int, int], torch.Tensor] = {}  # what a run that failed had done: caches only grow
        self._last_row_only = {"logits_to_keep": 1} if model._supports_logits_to_keep() else {}

    def run(self, turn: Turn) -> torch.Tensor:
        """Logits after the last token of each of `turn.choosing`: float32 [rows, vocabulary]."""
        rows = [self._advance(sequence, 1) for sequence in turn.decoding]
        for chunk in turn.chunks:
            logits = self._advance(chunk.sequence, chunk.count)
            if chunk.completes:
                rows.append(logits)
        self._halfway.clear()
        return torch.cat(rows) if rows else torch.empty(0, 0)

    def _advance(self, sequence: Holder, count: int) -> torch.Tensor:
        past, caches = sequence.processed, self.memory.caches
        advanced = (sequence.id, past)
        if advanced not in self._halfway:
            if past == 0:
                caches[sequence.id] = DynamicCache(config=self._model.config)
            tokens = sequence.tokens(past, past + count)
            self._halfway[advanced] = self._forward(tokens, past, caches[sequence.id])
        return self._halfway[advanced]

    def _forward(self, tokens: list[int], past: int, cache: DynamicCache) -> torch.Tensor:
        """Logits after the last of `tokens`, float32 [1, vocabulary]."""
        total = past + len(tokens)
        if self._mask.shape[1] < total:
            self._mask = self._mask.new_ones((1, max(total, 2 * self._mask.shape[1])))
        inputs = self._model.prepare_inputs_for_generation(
            torch.tensor([tokens], device=self._mask.device),
            **{self._cache_name: cache},
            attention_mask=self._mask[:, :total],
            use_cache=True,
            is_first_iteration=past == 0,
            **self._last_row_only,
        )
        logits: torch.Tensor = self._model(**inputs, return_dict=True).logits[:, -1]
        return logits.float()


def cache_name(model: Any) -> str:
    """The keyword under which the model takes its cache."""
    return "cache_params" if "cache_params" in inspect.signature(model.forward).parameters else "past_key_values"
