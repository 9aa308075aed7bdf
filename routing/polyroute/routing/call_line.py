"""The log line of one call: whatever is known of it, prompt and answer excepted."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import structlog

from polyroute.core.event import Attempt, Route, Timing, Usage
from polyroute.routing.observation import Observation

_DIGITS: Final = 6

log = structlog.get_logger(__name__)


def write_line(seen: Observation) -> None:
    """Logs `call.finished`: an error of ours or of a backend is a warning or worse, everything else is information."""
    status = 200 if seen.failure is None else seen.failure.http
    to = log.bind()  # structlog's proxy finds no method of its own: to ask it for one takes longer than all the rest
    write = to.info if status < 500 else to.error if status == 500 else to.warning
    call, trace = seen.call, seen.trace
    line = CallLine(
        trace.trace_id,
        "" if trace.span is None else trace.span.span_id,
        call.entrance.method,
        seen.route,
        seen.outcome,
        seen.timing,
        seen.usage,
        seen.tokens_estimated,
        seen.error,
    )
    write("call.finished", request_id=call.request_id, later=line)


class CallLine(msgspec.Struct, frozen=True, gc=False):
    """What the line says but the request's ID, to be put into fields by who writes it (`core.telemetry.LATER`).

    It holds nothing of what was asked or answered, for it may wait among thousands.
    """

    trace_id: str
    span_id: str
    entrance: str
    route: Route
    outcome: str
    timing: Timing
    usage: Usage
    tokens_estimated: bool
    error: str

    def __call__(self) -> dict[str, Any]:
        """The fields; times are in seconds."""
        route, timing, usage = self.route, self.timing, self.usage
        line: dict[str, Any] = {
            "trace_id": self.trace_id,
            "entrance": self.entrance,
            "requested": route.requested,
            "model": route.model,
            "version": route.version,
            "deployment": route.deployment,
            "replica": route.replica,
            "variant": route.variant,
            "cache": route.cache.label,
            "attempts": [_told(attempt) for attempt in route.attempts],
            "outcome": self.outcome,
            "queue_s": round(timing.queue_s, _DIGITS),
            "first_token_s": round(timing.first_token_s, _DIGITS),
            "total_s": round(timing.total_s, _DIGITS),
            "backend_s": round(timing.backend_s, _DIGITS),
            "router_overhead_s": round(timing.router_overhead_s, _DIGITS),
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "cached_prompt_tokens": usage.cached_prompt_tokens,
        }
        if self.tokens_estimated:
            line["tokens_estimated"] = True
        if self.span_id:
            line["span_id"] = self.span_id
        if self.error:
            line["error"] = self.error
        return line

    def __repr__(self) -> str:
        return repr(self())  # no more than a line has, wherever it is shown


def _told(attempt: Attempt) -> str:
    where = f"{attempt.deployment} at {attempt.replica}" if attempt.replica else attempt.deployment
    return f"{where}: {attempt.reason or 'ok'}"
