"""The log line of one call: whatever is known of it, prompt and answer excepted."""

from __future__ import annotations

from typing import Any, Final

import structlog

from polyroute.core.event import Attempt
from polyroute.routing.observation import Observation

_DIGITS: Final = 6

log = structlog.get_logger(__name__)


def write_line(seen: Observation) -> None:
    """Logs `call.finished`: an error of ours or of a backend is a warning or worse, everything else is information."""
    status = 200 if seen.failure is None else seen.failure.http
    if status < 500:
        log.info("call.finished", **fields(seen))
    elif status == 500:
        log.error("call.finished", **fields(seen))
    else:
        log.warning("call.finished", **fields(seen))


def fields(seen: Observation) -> dict[str, Any]:
    """What the line says; times are in seconds."""
    call, route, timing, usage = seen.call, seen.route, seen.timing, seen.usage
    line: dict[str, Any] = {
        "request_id": call.request_id,
        "trace_id": call.trace.trace_id,
        "entrance": call.entrance.method,
        "requested": route.requested,
        "model": route.model,
        "version": route.version,
        "deployment": route.deployment,
        "replica": route.replica,
        "variant": route.variant,
        "cache": route.cache.label,
        "attempts": [_told(attempt) for attempt in route.attempts],
        "outcome": seen.outcome,
        "queue_s": round(timing.queue_s, _DIGITS),
        "first_token_s": round(timing.first_token_s, _DIGITS),
        "total_s": round(timing.total_s, _DIGITS),
        "backend_s": round(timing.backend_s, _DIGITS),
        "router_overhead_s": round(timing.router_overhead_s, _DIGITS),
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cached_prompt_tokens": usage.cached_prompt_tokens,
    }
    if seen.tokens_estimated:
        line["tokens_estimated"] = True
    if call.trace.span is not None:
        line["span_id"] = call.trace.span.span_id
    if seen.error:
        line["error"] = seen.error
    return line


def _told(attempt: Attempt) -> str:
    where = f"{attempt.deployment} at {attempt.replica}" if attempt.replica else attempt.deployment
    return f"{where}: {attempt.reason or 'ok'}"
