"""Where a call stands in its trace, and the spans that are kept of it where it is sampled."""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Literal, TypeAlias

import msgspec

from polyroute.core.attributes import ERROR_TYPE

Value: TypeAlias = str | int | float | bool | tuple[str, ...]
"""Value of an attribute."""
Kind: TypeAlias = Literal["server", "client", "internal"]
"""What a span is of: a call that came in, one that went out, or work in between."""

SAMPLED: Final = 0x01
"""The flag by which a caller says that it keeps the spans of its trace."""
MOST_EVENTS: Final = 64
"""Most events that one span keeps; later ones are counted only."""

_NO_TRACE_ID: Final = "0" * 32
_NO_SPAN_ID: Final = "0" * 16
_PARENT: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-[\x21-\x7e]{0,128})?"
)
_STATE: Final = re.compile(r"[\x20-\x7e]{1,512}")
_TRACE_DIGITS: Final = len(_NO_TRACE_ID + _NO_SPAN_ID)
_DRAWN_AT_ONCE: Final = 256
_chance = random.Random()  # noqa: S311 - IDs must differ; nothing rests on that nobody can guess them


class Trace(msgspec.Struct, frozen=True, gc=False):
    """W3C trace context (https://www.w3.org/TR/trace-context/): whose child the next piece of work is.

    `trace_id` has 32 hex digits, `span_id` 16; both are empty where a caller sends none. `span` is the open span that
    the work is done for, None where nobody keeps spans of this call; traces that differ in it alone are equal.
    """

    trace_id: str = ""
    span_id: str = ""
    flags: int = 0
    state: str = ""
    span: Span | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Trace) and _told(self) == _told(other)

    def __hash__(self) -> int:
        return hash(_told(self))

    @property
    def sampled(self) -> bool:
        """Whether spans of this trace are kept, by the caller or by us."""
        return bool(self.flags & SAMPLED)

    def headers(self) -> dict[str, str]:
        """The headers that tell it to whoever does the next piece of work; none where there is no trace."""
        if not self.trace_id:
            return {}
        parent = f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"
        return {"traceparent": parent, "tracestate": self.state} if self.state else {"traceparent": parent}

    def under(self, span: Span) -> Trace:
        """The same trace for work that `span` is kept of."""
        return Trace(self.trace_id, span.span_id, self.flags, self.state, span)


def _told(trace: Trace) -> tuple[object, ...]:
    return trace.trace_id, trace.span_id, trace.flags, trace.state


NO_TRACE: Final = Trace()
_drawn: list[Trace] = []  # drawn one by one, their IDs would cost a call several times as much
os.register_at_fork(after_in_child=_drawn.clear)
os.register_at_fork(after_in_child=_chance.seed)


def parse(parent: str, state: str = "") -> Trace:
    """The trace of the headers `traceparent` and `tracestate`; what is not well formed is left out, as W3C asks."""
    found = _PARENT.fullmatch(parent)
    if found is None or (parent.startswith("00") and found[4] is not None):
        return NO_TRACE
    return Trace(found[1], found[2], int(found[3], 16), state if _STATE.fullmatch(state) else "")


def new_trace_id() -> str:
    """A trace ID that no other trace has."""
    return f"{_chance.getrandbits(128) or 1:032x}"


def begun() -> Trace:
    """A new trace, which nobody keeps spans of."""
    try:
        return _drawn.pop()
    except IndexError:
        _drawn.extend(_draw())
        return begun()


def _draw() -> Iterator[Trace]:
    digits = _chance.randbytes(_DRAWN_AT_ONCE * _TRACE_DIGITS // 2).hex()
    for i in range(0, len(digits), _TRACE_DIGITS):
        trace_id, span_id = digits[i : i + 32], digits[i + 32 : i + _TRACE_DIGITS]
        if trace_id != _NO_TRACE_ID and span_id != _NO_SPAN_ID:  # never, in practice; neither may be all zeros
            yield Trace(trace_id, span_id)


def new_span_id() -> str:
    """A span ID that no other span of its trace has."""
    return f"{_chance.getrandbits(64) or 1:016x}"


class SpanEvent(msgspec.Struct, frozen=True, gc=False):
    """Something that happened at one time, `at_ns` in Unix nanoseconds."""

    name: str
    at_ns: int
    attributes: Mapping[str, Value]


class Span:
    """One piece of work of a call that is sampled, from its making until `end`, when `keep` is given it.

    Times are in Unix nanoseconds. Unlike OpenTelemetry's, it is never the "current" one of a task: who works for it
    is handed it, so that no stream can leave it behind in its consumer.
    """

    __slots__ = (
        "_keep",
        "attributes",
        "begun_ns",
        "ended_ns",
        "error",
        "events",
        "events_dropped",
        "kind",
        "link",
        "name",
        "parent_id",
        "parent_is_remote",
        "span_id",
        "state",
        "trace_id",
    )

    def __init__(
        self,
        name: str,
        kind: Kind,
        parent: Trace,
        keep: Callable[[Span], None],
        attributes: Mapping[str, Value],
        *,
        begun_ns: int | None = None,
        parent_is_remote: bool = False,
    ) -> None:
        self.name = name
        self.kind = kind
        self.trace_id = parent.trace_id
        self.span_id = new_span_id()
        self.parent_id = parent.span_id
        self.parent_is_remote = parent_is_remote
        self.state = parent.state
        self.begun_ns = time.time_ns() if begun_ns is None else begun_ns
        self.ended_ns = 0
        self.attributes: dict[str, Value] = dict(attributes)
        self.events: list[SpanEvent] = []
        self.events_dropped = 0
        self.link: Trace | None = None
        """Another piece of work that this one came of, and that does not wait for it."""
        self.error: str | None = None
        """What went wrong, in words, where the work has failed."""
        self._keep = keep

    def __repr__(self) -> str:
        return f"<Span {self.name} {self.trace_id}/{self.span_id} {'ended' if self.ended_ns else 'open'}>"

    def child(
        self, name: str, kind: Kind, attributes: Mapping[str, Value] = {}, *, begun_ns: int | None = None
    ) -> Span:
        """A span of a part of this work."""
        within = Trace(self.trace_id, self.span_id, SAMPLED, self.state)
        return Span(name, kind, within, self._keep, attributes, begun_ns=begun_ns)

    def linked(self, name: str, kind: Kind, attributes: Mapping[str, Value] = {}) -> Trace:
        """A new trace, of work that comes of this but is none of its parts; its span links back to this one."""
        trace = Trace(new_trace_id(), "", SAMPLED)
        span = Span(name, kind, trace, self._keep, attributes)
        span.link = Trace(self.trace_id, self.span_id, SAMPLED, self.state)
        return trace.under(span)

    def event(self, name: str, attributes: Mapping[str, Value] = {}) -> None:
        """Notes that something has happened now."""
        if len(self.events) < MOST_EVENTS:
            self.events.append(SpanEvent(name, time.time_ns(), attributes))
        else:
            self.events_dropped += 1

    def failed(self, reason: str, message: str) -> None:
        """The work has failed: `reason` is machine-readable, `message` for people."""
        self.attributes[ERROR_TYPE] = reason
        self.error = message

    def end(self, at_ns: int | None = None) -> None:
        """The work is over; a second time changes nothing."""
        if not self.ended_ns:
            self.ended_ns = max(self.begun_ns, time.time_ns() if at_ns is None else at_ns)
            self._keep(self)


Begin: TypeAlias = Callable[[Trace, str, Callable[[], Mapping[str, Value]]], Trace]
"""Begins the trace of a call that came in: given what its caller sent, its span's name, and what makes the attributes
by which may be decided whether it is kept. The answer has a trace ID in any case, and a span where that one is kept."""


def untraced(parent: Trace, name: str = "", attributes: Callable[[], Mapping[str, Value]] = dict) -> Trace:
    """The `Begin` of a router that keeps no spans: it passes on the trace of its caller as it is, or begins one."""
    return parent if parent.trace_id else begun()
