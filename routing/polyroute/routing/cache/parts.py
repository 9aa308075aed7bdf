"""What a run is made of for those that share it: events, or a stored answer in their place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from polyroute.core.errors import PolyrouteError
from polyroute.core.event import Event, Token, TokenLogprob
from polyroute.routing.cache.terms import Found

_PART_BYTES: Final = 128
_PIECE_BYTES: Final = 64
_LOGPROB_BYTES: Final = 128


@dataclass(frozen=True, slots=True)
class Stored:
    """A stored answer was found; or one is there to be given in place of an `error`."""

    found: Found
    error: PolyrouteError | None = None


Part: TypeAlias = Event | Stored


def text_bytes(token: Token) -> int:
    """About how many bytes the contents of a token take, in memory or stored."""
    size = len(token.text)
    if token.tool_calls:
        size += sum(len(call.arguments) + len(call.name) + len(call.id) for call in token.tool_calls)
    if token.logprobs:
        size += sum(_logprob_bytes(each) for each in token.logprobs)
    return size


def weight(part: Part) -> int:
    """About how many bytes a part takes in memory."""
    if not isinstance(part, Token):
        return _PART_BYTES
    size = _PART_BYTES + len(part.text)
    if part.pieces:
        size += len(part.text) + _PIECE_BYTES * len(part.pieces)
    if part.tool_calls or part.logprobs:
        size += text_bytes(part) - len(part.text)
    return size


def _logprob_bytes(logprob: TokenLogprob) -> int:
    return _LOGPROB_BYTES * (1 + len(logprob.top))
