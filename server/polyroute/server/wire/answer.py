"""Answers: from the events of core to `polyroute.v1` messages, and the parts of them back."""

from __future__ import annotations

import time
from typing import Final

from polyroute.core.event import (
    Attempt,
    Finished,
    FinishReason,
    Route,
    Started,
    Timing,
    Token,
    TokenLogprob,
    TopLogprob,
    Usage,
)
from polyroute.core.request import ToolCall
from polyroute.server.answers import Answer
from polyroute.server.wire.request import tool_call_from_wire
from polyroute.server.wire.values import put_duration, put_time, seconds_of
from polyroute.v1 import inference_pb2 as pb

_NO_TIMING: Final = Timing()


def answer_to_wire(answer: Answer, request_id: str) -> pb.GenerateResponse:
    """One whole answer."""
    wire = pb.GenerateResponse(request_id=request_id, text=answer.text)
    put_time(wire.created, answer.created)
    _put_route(wire.route, answer.route)
    put_end(wire, answer.end)
    if answer.tool_calls:
        wire.tool_calls.extend(map(tool_call_to_wire, answer.tool_calls))
    if answer.logprobs:
        wire.logprobs.extend(map(_logprob, answer.logprobs))
    return wire


def event_to_wire(event: Started | Token | Finished, sequence: int, request_id: str) -> pb.GenerateEvent:
    """One event of a streamed answer; one that has just begun was made now."""
    wire = pb.GenerateEvent(sequence=sequence)
    if isinstance(event, Token):
        put_delta(wire.delta, event)
    elif isinstance(event, Started):
        wire.start.request_id = request_id
        put_time(wire.start.created, time.time())
        _put_route(wire.start.route, event.route)
    else:
        put_end(wire.end, event)
    return wire


def put_delta(wire: pb.GenerateDelta, event: Token) -> None:
    """Sets a part of a streamed answer."""
    wire.text = event.text
    if event.tool_calls:
        wire.tool_calls.extend(map(tool_call_to_wire, event.tool_calls))
    if event.logprobs:
        wire.logprobs.extend(map(_logprob, event.logprobs))


def put_end(wire: pb.GenerateEnd | pb.GenerateResponse, end: Finished) -> None:
    """Sets the end of an answer."""
    put_outcome(wire, end)
    put_timing(wire.timing, end.timing)


def put_outcome(wire: pb.GenerateEnd | pb.GenerateResponse, end: Finished) -> None:
    """Sets the end of an answer but for its timing."""
    wire.finish_reason = pb.FinishReason.ValueType(end.reason.value)
    usage = wire.usage
    usage.prompt_tokens = end.usage.prompt_tokens
    usage.completion_tokens = end.usage.completion_tokens
    usage.cached_prompt_tokens = end.usage.cached_prompt_tokens
    if end.matched_stop is not None:
        wire.matched_stop = end.matched_stop
    if end.seed is not None:
        wire.seed = end.seed


def route_to_wire(route: Route) -> pb.Route:
    """How a call was routed."""
    wire = pb.Route()
    _put_route(wire, route)
    return wire


def tool_call_to_wire(call: ToolCall) -> pb.ToolCall:
    """A tool call, whole or in part."""
    return pb.ToolCall(id=call.id, name=call.name, arguments=call.arguments, index=call.index)


def delta_from_wire(wire: pb.GenerateDelta) -> Token:
    """A part of a stored answer."""
    return Token(
        text=wire.text,
        tool_calls=tuple(map(tool_call_from_wire, wire.tool_calls)),
        logprobs=tuple(
            TokenLogprob(
                token=item.token,
                token_bytes=item.token_bytes,
                logprob=item.logprob,
                top=tuple(TopLogprob(t.token, t.token_bytes, t.logprob) for t in item.top),
            )
            for item in wire.logprobs
        ),
    )


def end_from_wire(wire: pb.GenerateEnd) -> Finished:
    """The end of a stored answer; an unknown finish reason raises `ValueError`."""
    return Finished(
        reason=FinishReason(wire.finish_reason),
        usage=Usage(wire.usage.prompt_tokens, wire.usage.completion_tokens, wire.usage.cached_prompt_tokens),
        timing=_timing_from_wire(wire.timing) if wire.HasField("timing") else _NO_TIMING,
        matched_stop=wire.matched_stop if wire.HasField("matched_stop") else None,
        seed=wire.seed if wire.HasField("seed") else None,
    )


def _timing_from_wire(wire: pb.Timing) -> Timing:
    return Timing(
        queue_s=seconds_of(wire.queue),
        first_token_s=seconds_of(wire.first_token),
        total_s=seconds_of(wire.total),
        router_overhead_s=seconds_of(wire.router_overhead),
    )


def _logprob(item: TokenLogprob) -> pb.TokenLogprob:
    return pb.TokenLogprob(
        token=item.token,
        token_bytes=item.token_bytes,
        logprob=item.logprob,
        top=[pb.TopLogprob(token=t.token, token_bytes=t.token_bytes, logprob=t.logprob) for t in item.top],
    )


# Messages are filled where they stand: one that is made by itself and given to another is copied.


def put_timing(wire: pb.Timing, timing: Timing) -> None:
    """Where the time of an answer went."""
    put_duration(wire.queue, timing.queue_s)
    put_duration(wire.first_token, timing.first_token_s)
    put_duration(wire.total, timing.total_s)
    put_duration(wire.router_overhead, timing.router_overhead_s)


def _put_route(wire: pb.Route, route: Route) -> None:
    wire.requested = route.requested
    wire.model = route.model
    wire.version = route.version
    wire.deployment = route.deployment
    wire.replica = route.replica
    wire.variant = route.variant
    wire.cache = pb.CacheResult.ValueType(route.cache.value)
    for attempt in route.attempts:
        _put_attempt(wire.attempts.add(), attempt)
    wire.reasons.extend(route.reasons)
    if route.upstream is not None:
        _put_route(wire.upstream, route.upstream)
    wire.trace_id = route.trace_id
    wire.sticky_by = route.sticky_by
    if route.hash_point is not None:
        wire.hash_point = route.hash_point
    if route.probability is not None:
        wire.probability = route.probability
    if route.cache_age_s is not None:
        put_duration(wire.cache_age, route.cache_age_s)
    wire.cache_key = route.cache_key


def _put_attempt(wire: pb.Attempt, attempt: Attempt) -> None:
    wire.deployment = attempt.deployment
    wire.replica = attempt.replica
    wire.variant = attempt.variant
    if attempt.reason:
        wire.error.reason = attempt.reason
        wire.error.message = attempt.message
    put_duration(wire.duration, attempt.duration_s)
