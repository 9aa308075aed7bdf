"""The way for models whose attention cannot be packed, or that keep other state: each sequence with a cache of its own.

Slower, since every sequence costs a forward pass of its own in each step, and right for whatever `generate` serves.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
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
        self.limit_bytes = limit_bytes
        self._reserved: dict[int, int] = {}  # tokens, by sequence
        self.caches: dict[int, DynamicCache] = {}

    @property
    def capacity_tokens(self) -> int:
        """The longest sequence that fits when it is alone."""
        return max(1, (self.limit_bytes - self._sequence_bytes) // self._token_bytes)

    @property
    def used_bytes(self) -> int:
        """Memory of all sequences."""
        return len(self._reserved) * self._sequence_bytes + sum(self._reserved.values()) * self._token_bytes

    def reserve(self, sequence: Holder, tokens: int) -> bool:
        """Makes room for `tokens` of the sequence in all; False, and nothing changed, where the cap leaves none."""
        held = self._reserved.get(sequence.id)
        more = (tokens - (held or 0)) * self._token_bytes + (self._sequence_bytes if held is None else 0)
        if more > 0 and self.used_bytes + more > self.limit_bytes:
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


@dataclass(frozen=True, slots=True)
class _Done:
    """The logits after tokens that a sequence's cache has taken in, from `past` on."""

    sequence: Holder
    past: int
    logits: torch.Tensor

    @property
    def stands(self) -> bool:
        """Whether the caller has yet to note these tokens as processed, and so would ask for them again."""
        return self.sequence.processed == self.past


class ApartForward:
    """See `turn.Forward`. Inputs are prepared as `generate` prepares them, by the model's own code."""

    path = "apart"
    played = False
    why_eager = ""

    def __init__(self, model: Any, memory: ApartMemory, *, whole_prompts: bool = False) -> None:
        self.whole_prompts = whole_prompts
        self._model = model
        self._cache_name = cache_name(model)
        self.memory = memory
        self._mask = torch.ones((1, 0), dtype=torch.long, device=model.device)
        self._done: dict[int, _Done] = {}  # of the latest runs: caches only grow, so a repeated run must not repeat it
        self._last_row_only = {"logits_to_keep": 1} if model._supports_logits_to_keep() else {}

    def run(self, turn: Turn) -> torch.Tensor:
        """Logits after the last token of each of `turn.choosing`: float32 [rows, vocabulary]."""
        self._done = {id: done for id, done in self._done.items() if id in self.memory.caches and done.stands}
        rows = [self._advance(sequence, 1) for sequence in turn.decoding]
        for chunk in turn.chunks:
            logits = self._advance(chunk.sequence, chunk.count)
            if chunk.completes:
                rows.append(logits)
        return torch.cat(rows) if rows else torch.empty(0, 0)

    def _advance(self, sequence: Holder, count: int) -> torch.Tensor:
        past, caches = sequence.processed, self.memory.caches
        done = self._done.get(sequence.id)
        if done is None or done.sequence is not sequence:
            start = past if sequence.id in caches else 0
            if start == 0:
                caches[sequence.id] = DynamicCache(config=self._model.config)
            try:
                logits = self._forward(sequence.tokens(start, past + count), start, caches[sequence.id])
            except Exception:
                del caches[sequence.id]  # some of its layers have taken the tokens in: to be computed anew
                raise
            self._done[sequence.id] = done = _Done(sequence, past, logits)
        return done.logits

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
