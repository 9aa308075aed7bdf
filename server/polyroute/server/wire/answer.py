"""Answers: from the events of core to `polyroute.v1` messages, and the parts of them back."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing

from polyroute.core.event import (
    Event,
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
from polyroute.routing.streams import generator
from polyroute.server.wire.request import tool_call_from_wire
from polyroute.server.wire.values import duration, seconds_of, timestamp
from polyroute.v1 import inference_pb2 as pb


async def collect(events: AsyncIterator[Event], request_id: str) -> pb.GenerateResponse:
    """One whole answer out of a stream of events, which is closed however this ends."""
    response = pb.GenerateResponse(request_id=request_id)
    text: list[str] = []
    calls: dict[int, ToolCall] = {}
    async with aclosing(generator(events)) as stream:
        async for event in stream:
            if isinstance(event, Token):
                text.append(event.text)
                if event.tool_calls:
                    merge_tool_calls(calls, event.tool_calls)
                if event.logprobs:
                    response.logprobs.extend(map(_logprob, event.logprobs))
            elif isinstance(event, Started):
                response.route.CopyFrom(route_to_wire(event.route))
                response.created.CopyFrom(timestamp(time.time()))
            else:
                end = end_to_wire(event)
                response.finish_reason = end.finish_reason
                response.usage.CopyFrom(end.usage)
                response.timing.CopyFrom(end.timing)
                if end.HasField("matched_stop"):
                    response.matched_stop = end.matched_stop
                if end.HasField("seed"):
                    response.seed = end.seed
    response.text = "".join(text)
    response.tool_calls.extend(tool_call_to_wire(calls[index]) for index in sorted(calls))
    return response


def merge_tool_calls(calls: dict[int, ToolCall], parts: Iterable[ToolCall]) -> None:
    """Adds streamed parts of tool calls to `calls`, by index: names and IDs come once, arguments concatenate."""
    for part in parts:
        known = calls.get(part.index, ToolCall(index=part.index))
        calls[part.index] = ToolCall(
            id=known.id or part.id,
            name=known.name or part.name,
            arguments=known.arguments + part.arguments,
            index=part.index,
        )


def start_to_wire(event: Started, request_id: str) -> pb.GenerateStart:
    """The beginning of a streamed answer, begun now."""
    return pb.GenerateStart(request_id=request_id, route=route_to_wire(event.route), created=timestamp(time.time()))


def delta_to_wire(event: Token) -> pb.GenerateDelta:
    """A part of a streamed answer."""
    if not event.tool_calls and not event.logprobs:
        return pb.GenerateDelta(text=event.text)
    return pb.GenerateDelta(
        text=event.text,
        tool_calls=map(tool_call_to_wire, event.tool_calls),
        logprobs=map(_logprob, event.logprobs),
    )


def end_to_wire(event: Finished) -> pb.GenerateEnd:
    """The end of a streamed answer."""
    timing = event.timing
    return pb.GenerateEnd(
        finish_reason=pb.FinishReason.ValueType(event.reason.value),
        usage=pb.Usage(
            prompt_tokens=event.usage.prompt_tokens,
            completion_tokens=event.usage.completion_tokens,
            cached_prompt_tokens=event.usage.cached_prompt_tokens,
        ),
        timing=pb.Timing(
            queue=duration(timing.queue_s),
            first_token=duration(timing.first_token_s),
            total=duration(timing.total_s),
            router_overhead=duration(timing.router_overhead_s),
        ),
        matched_stop=event.matched_stop,
        seed=event.seed,
    )


def route_to_wire(route: Route) -> pb.Route:
    """How a call was routed."""
    return pb.Route(
        requested=route.requested,
        model=route.model,
        version=route.version,
        deployment=route.deployment,
        replica=route.replica,
        variant=route.variant,
        cache=pb.CacheResult.ValueType(route.cache.value),
        attempts=[
            pb.Attempt(
                deployment=attempt.deployment,
                replica=attempt.replica,
                variant=attempt.variant,
                error=pb.AttemptError(reason=attempt.reason, message=attempt.message) if attempt.reason else None,
                duration=duration(attempt.duration_s),
            )
            for attempt in route.attempts
        ],
        reasons=route.reasons,
        upstream=route_to_wire(route.upstream) if route.upstream is not None else None,
        trace_id=route.trace_id,
        sticky_by=route.sticky_by,
        hash_point=route.hash_point,
        probability=route.probability,
        cache_age=duration(route.cache_age_s) if route.cache_age_s is not None else None,
        cache_key=route.cache_key,
    )


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
        timing=Timing(
            queue_s=seconds_of(wire.timing.queue),
            first_token_s=seconds_of(wire.timing.first_token),
            total_s=seconds_of(wire.timing.total),
            router_overhead_s=seconds_of(wire.timing.router_overhead),
        ),
        matched_stop=wire.matched_stop if wire.HasField("matched_stop") else None,
        seed=wire.seed if wire.HasField("seed") else None,
    )


def _logprob(item: TokenLogprob) -> pb.TokenLogprob:
    return pb.TokenLogprob(
        token=item.token,
        token_bytes=item.token_bytes,
        logprob=item.logprob,
        top=[pb.TopLogprob(token=t.token, token_bytes=t.token_bytes, logprob=t.logprob) for t in item.top],
    )
