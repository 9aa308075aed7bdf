"""A stored answer, and what turns it into bytes. The bytes' format is the server's business."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from polyroute.core.event import Finished, Token


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """One complete answer. `key` is the canonical request; `created` is Unix time and `took_s` is in seconds.

    `gaps_ms` are the milliseconds before each token and before the end, each since what came before it; the first
    since the call had its permit. Empty where they are not known.
    """

    key: bytes
    model: str
    version: str
    tokens: tuple[Token, ...]
    finished: Finished
    created: float
    took_s: float
    gaps_ms: tuple[int, ...] = ()
    forms: dict[tuple[str, ...], tuple[bytes, ...]] = field(default_factory=dict, repr=False, compare=False)
    """See `polyroute.core.event.Whole`; not stored."""


class Codec(Protocol):
    """Turns answers into bytes and back."""

    def encode(self, answer: StoredAnswer) -> bytes:
        """The answer as bytes."""
        ...

    def decode(self, blob: bytes) -> StoredAnswer:
        """The answer in `blob`; raises `ValueError` for anything that `encode` did not make."""
        ...
