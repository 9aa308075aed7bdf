"""The trial at load: a way to run a model has to give what the model's own code gives, on two short texts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch

from polyroute.backends.local.worker.forward.attention import NotPackable
from polyroute.backends.local.worker.forward.turn import Chunk, Forward, Turn

_WINDOW = 16  # the width that attention windows are narrowed to for the trial, so that a short text passes them
_LENGTHS = (48, 37)  # of the trial's two texts, beyond any window
_CHUNK = 11
_DECODED = 9  # of their tokens, how many are fed one by one
_TOLERANCE = 2e-3  # of the logits' norm; more where the model itself is not as exact
_ROUNDING = 1e-6  # of a number: what sums of float32 in another order differ by; of fewer bits, half of the last one


class Trial:
    """Two texts, with what the model's own code makes of them; made before its attention is replaced."""

    def __init__(self, model: Any) -> None:
        config = model.config.get_text_config(decoder=True)
        most = getattr(config, "max_position_embeddings", None) or max(_LENGTHS)
        chance = torch.Generator().manual_seed(0)
        self._texts = []
        self._tolerance = _TOLERANCE
        for id, length in enumerate(_LENGTHS):
            tokens = torch.randint(config.vocab_size, (min(length, most),), generator=chance)
            logits = _own_logits(model, tokens)
            half = _own_logits(model, tokens[: len(tokens) // 2])
            with _disturbed(model):
                noisy = _own_logits(model, tokens)
            trembling = max(_error(*rows) for rows in zip(noisy, logits, strict=True))
            self._tolerance = max(self._tolerance, 4 * _error(half[-1], logits[len(half) - 1]), 2 * trembling)
            self._texts.append(_Text(id, tokens.tolist(), logits))

    def compare(self, forward: Forward, way: str = "packed") -> None:
        """Reads the texts in chunks, the second joining late, then token by token.

        Raises `NotPackable`, which says that the model answers differently this `way`.
        """
        for text in self._texts:
            text.processed, text.length = 0, max(1, len(text.all) - _DECODED)
        active = self._texts[:1]
        while active:
            self._run(forward, active, way)
            active = [text for text in self._texts if text.processed < len(text.all)]

    def _run(self, forward: Forward, active: list[_Text], way: str) -> None:
        turn = Turn([], [])
        for text in active:
            if text.processed >= text.length:
                text.length += 1
            forward.memory.reserve(text, text.length)
            left = text.length - text.processed
            if left == 1 and text.processed:
                turn.decoding.append(text)
            else:
                turn.chunks.append(Chunk(text, min(left, _CHUNK)))
        wanted_rows = [cast("_Text", text).wanted[text.length - 1] for text in turn.choosing]
        logits = forward.run(turn)
        for member in turn.decoding:
            member.processed += 1
        for chunk in turn.chunks:
            chunk.sequence.processed += chunk.count
        for row, wanted in zip(logits, wanted_rows, strict=True):
            if not (error := _error(row, wanted)) <= self._tolerance:
                raise NotPackable(f"{way}, it answers differently (logits are off by {error:.1%})")


@contextmanager
def narrow_windows(model: Any) -> Iterator[None]:
    """Attention windows and chunks of `_WINDOW` tokens for a while: a fault shows at any width."""
    config = model.config.get_text_config(decoder=True)
    changed: list[tuple[Any, str, int]] = []
    for owner in (model.config, config, *model.modules()):
        for name in ("sliding_window", "attention_chunk_size"):
            width = getattr(owner, name, None)
            if isinstance(width, int) and not isinstance(width, bool) and width > _WINDOW:
                changed.append((owner, name, width))
                setattr(owner, name, _WINDOW)
    try:
        yield
    finally:
        for owner, name, width in reversed(changed):
            setattr(owner, name, width)


@dataclass(eq=False, slots=True)
class _Text:
    """A text of the trial, as a sequence; the tokens are given, and only looked at one by one."""

    id: int
    all: list[int]
    wanted: torch.Tensor  # the model's own logits after each of its tokens
    length: int = 0
    arrival: int = 0
    processed: int = 0
    cached: int = 0
    room: int = 0

    @property
    def prompt(self) -> list[int]:
        return self.all

    def tokens(self, start: int, stop: int) -> list[int]:
        return self.all[start:stop]


@contextmanager
def _disturbed(model: Any) -> Iterator[None]:
    """What rounding itself may do to the embeddings: where products round to 16 bits, it does not stay small."""
    chance = torch.Generator().manual_seed(0)

    def disturb(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        noise = torch.randn(output.shape, generator=chance).to(output.device)
        rounding = max(_ROUNDING, torch.finfo(output.dtype).eps / 2)
        return (output.float() * (1 + rounding * noise)).to(output.dtype)

    hook = model.get_input_embeddings().register_forward_hook(disturb)
    try:
        yield
    finally:
        hook.remove()


def _own_logits(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = model(input_ids=tokens.to(model.device)[None], use_cache=False).logits[0]
    return logits.float()


def _error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    spread = wanted - wanted.mean()
    return float((found.float() - wanted).norm() / spread.norm().clamp_min(1e-9))
