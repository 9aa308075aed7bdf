"""A stored answer, and what turns it into bytes. The bytes' format is the server's business."""

from __future__ import annotations

from typing import Final, Protocol

import msgspec

from polyroute.core.event import Finished, Token, TokenLogprob, TopLogprob

_AROUND: Final = 64
"""What stands in an answer's bytes beside its key and its parts, about."""
_AROUND_PART: Final = 4


class StoredAnswer(msgspec.Struct, frozen=True, gc=False):
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
    forms: dict[tuple[str, ...], tuple[bytes, ...]] = {}
    """See `polyroute.core.event.Whole`; not stored."""


def size_of(answer: StoredAnswer) -> int:
    """About how many bytes an answer takes as bytes, without making them.

    Raises `UnicodeEncodeError`, a `ValueError`, where a text is none that can be encoded.
    """
    size = _AROUND + len(answer.key)
    for token in answer.tokens:
        size += _AROUND_PART + _utf8(token.text)
        for call in token.tool_calls:
            size += _AROUND_PART + _utf8(call.id) + _utf8(call.name) + _utf8(call.arguments)
        for each in token.logprobs:
            size += _logprob(each) + sum(map(_logprob, each.top))
    return size


def _logprob(logprob: TokenLogprob | TopLogprob) -> int:
    return 4 * _AROUND_PART + _utf8(logprob.token) + len(logprob.token_bytes)


def _utf8(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


class Codec(Protocol):
    """Turns answers into bytes and back."""

    def encode(self, answer: StoredAnswer) -> bytes:
        """The answer as bytes."""
        ...

    def decode(self, blob: bytes) -> StoredAnswer:
        """The answer in `blob`; raises `ValueError` for anything that `encode` did not make."""
        ...
