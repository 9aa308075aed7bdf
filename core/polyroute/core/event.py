"""What an answer is made of: `Started`, then `Token`s, then `Finished`; or all of it at once, a `Whole`."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Final, TypeAlias

import msgspec

from polyroute.core.request import ToolCall


class CacheResult(Enum):
    """What the cache did; names as in `polyroute.v1.CacheResult`."""

    UNSPECIFIED = 0
    MISS = 1
    HIT = 2
    COALESCED = 3
    BYPASS = 4

    def __init__(self, _number: int) -> None:
        self.label = self._name_.lower()
        """As logs and metrics have it."""

    __hash__ = object.__hash__  # each is one object; that of enums is their name's, found anew each time


HIT: Final = CacheResult.HIT
"""The same, for calls that cost little else: to find the member of an enum takes as long as to call a function."""


class FinishReason(Enum):
    """Why an answer ended; names as in `polyroute.v1.FinishReason`."""

    UNSPECIFIED = 0
    STOP = 1
    STOP_SEQUENCE = 2
    LENGTH = 3
    CONTENT_FILTER = 4
    TOOL_CALLS = 5


class TopLogprob(msgspec.Struct, frozen=True, gc=False):
    """One of the most likely tokens at a place; `logprob` is a natural logarithm."""

    token: str
    token_bytes: bytes
    logprob: float


class TokenLogprob(msgspec.Struct, frozen=True, gc=False):
    """Log probability of one generated token, and of the most likely ones in its place."""

    token: str
    token_bytes: bytes
    logprob: float
    top: tuple[TopLogprob, ...] = ()


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Tokens read and written."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_prompt_tokens: int = 0


class Timing(msgspec.Struct, frozen=True, gc=False):
    """Where the time of a call went, in seconds. `backend_s` is time spent waiting for a model or a peer."""

    queue_s: float = 0.0
    backend_s: float = 0.0
    first_token_s: float = 0.0
    total_s: float = 0.0
    router_overhead_s: float = 0.0


class Attempt(msgspec.Struct, frozen=True, gc=False):
    """One attempt to answer a call: `reason` and `message` are empty on the one that answered.

    `duration_s` is the time until the attempt's first event or its error.
    """

    deployment: str
    replica: str = ""
    variant: str = ""
    reason: str = ""
    message: str = ""
    duration_s: float = 0.0


class Route(msgspec.Struct, frozen=True, gc=False):
    """How a call was routed. Each layer fills in what it knows; the router completes it.

    `cache_key` is what the answer is stored under, in hexadecimal; empty where the cache was not asked.
    """

    requested: str = ""
    model: str = ""
    version: str = ""
    deployment: str = ""
    replica: str = ""
    variant: str = ""
    cache: CacheResult = CacheResult.UNSPECIFIED
    attempts: tuple[Attempt, ...] = ()
    reasons: tuple[str, ...] = ()
    upstream: Route | None = None
    trace_id: str = ""
    sticky_by: str = ""
    hash_point: float | None = None
    probability: float | None = None
    cache_age_s: float | None = None
    cache_key: str = ""


class Started(msgspec.Struct, frozen=True, gc=False):
    """The answer has begun. A backend yields it together with its first token, never before."""

    route: Route


class Token(msgspec.Struct, frozen=True, gc=False):
    """A part of the answer: the text of one or more tokens, never a part of a character.

    `usage` is what the answer has taken until here, where a backend tells that before the end; it is no part of what is
    said. Nor are `pieces`: the text in the pieces in which it was sent, where several of them came at once. Nor is
    `last`, which says that the end is there too: who writes the token may do so together with it.
    """

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    usage: Usage | None = None
    pieces: tuple[str, ...] = ()
    last: bool = False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Token) and _said(self) == _said(other)

    def __hash__(self) -> int:
        return hash(_said(self))


def _said(token: Token) -> tuple[object, ...]:
    return token.text, token.tool_calls, token.logprobs


class Finished(msgspec.Struct, frozen=True, gc=False):
    """The answer is complete."""

    reason: FinishReason
    usage: Usage = Usage()
    timing: Timing = Timing()
    matched_stop: str | None = None
    seed: int | None = None


class Whole(msgspec.Struct, frozen=True, gc=False):
    """A whole answer that was there before the call: one event in the place of all those that it is made of.

    So a stored answer passes each layer once, however many parts it has. Backends yield none. In `forms`, where it has
    any, who writes it keeps what is the same each time that this answer is given: each under names of its own, and few.
    """

    started: Started
    tokens: tuple[Token, ...]
    finished: Finished
    forms: dict[tuple[str, ...], tuple[bytes, ...]] | None = None


Event: TypeAlias = Started | Token | Finished | Whole


def parts_of(event: Event) -> Iterable[Started | Token | Finished]:
    """The event itself; those that it stands for, where it is a whole answer."""
    return (event.started, *event.tokens, event.finished) if isinstance(event, Whole) else (event,)
