"""How the span of a call is described."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from polyroute.core import attributes as names
from polyroute.core.call import Call, Entrance
from polyroute.core.event import CacheResult, FinishReason
from polyroute.core.request import Request
from polyroute.core.trace import Span, Value
from polyroute.routing.observation import OK, Observation

_SAMPLING: Final = (
    ("max_tokens", names.MAX_TOKENS),
    ("temperature", names.TEMPERATURE),
    ("top_p", names.TOP_P),
    ("top_k", names.TOP_K),
    ("seed", names.SEED),
    ("frequency_penalty", names.FREQUENCY_PENALTY),
    ("presence_penalty", names.PRESENCE_PENALTY),
)


def entrance_attributes(entrance: Entrance) -> dict[str, Value]:
    """What is known of a call before anything of it is read: samplers may decide by it."""
    if entrance.protocol == "grpc":
        return {names.RPC_SYSTEM: "grpc", names.RPC_METHOD: entrance.method}
    if entrance.protocol == "http":
        method, _, route = entrance.method.partition(" ")
        return {names.HTTP_METHOD: method, names.HTTP_ROUTE: route}
    return {}


def describe(span: Span, seen: Observation, content_chars: int) -> None:
    """Says on the span of a call all that is known of it when it is over.

    Prompt and answer are among it, `content_chars` characters of each at most, only where that is above 0.
    """
    span.attributes.update(_asked(seen.call))
    span.attributes.update(_answered(seen))
    _end(span, seen)
    if content_chars:
        span.attributes[names.INPUT_MESSAGES] = _cut(_input(seen.call.request), content_chars)
        span.attributes[names.OUTPUT_MESSAGES] = _cut(_output(seen), content_chars)


def _asked(call: Call) -> Mapping[str, Value]:
    request = call.request
    asked: dict[str, Value] = {
        names.REQUEST_ID: call.request_id,
        names.OPERATION: names.COMPLETION if request.messages is None else names.CHAT,
        names.PROVIDER: names.OUR_PROVIDER,
        names.REQUEST_MODEL: request.model,
    }
    for field, name in _SAMPLING:
        value = getattr(request.sampling, field)
        if value is not None:
            asked[name] = value
    for key, label in request.labels.items():
        asked[names.LABEL + key] = label
    return asked


def _answered(seen: Observation) -> Mapping[str, Value]:
    route, timing, usage = seen.route, seen.timing, seen.usage
    told: dict[str, Value] = {
        names.OUTCOME: seen.outcome,
        names.CACHE: route.cache.label,
        names.INPUT_TOKENS: usage.prompt_tokens,
        names.OUTPUT_TOKENS: usage.completion_tokens,
        names.WAIT: timing.queue_s,
    }
    if route.cache is CacheResult.HIT and route.cache_age_s is not None:
        told[names.CACHE_AGE] = route.cache_age_s
    if usage.cached_prompt_tokens:
        told[names.CACHED_TOKENS] = usage.cached_prompt_tokens
    if timing.first_token_s:
        told[names.TIME_TO_FIRST_CHUNK] = timing.first_token_s
    if seen.complete:
        told[names.OVERHEAD] = timing.router_overhead_s
    if seen.finish_reason is not FinishReason.UNSPECIFIED:
        told[names.FINISH_REASONS] = (seen.finish_reason.name.lower(),)
    where = {
        names.RESPONSE_MODEL: route.model,
        names.DEPLOYMENT: route.deployment,
        names.VERSION: route.version,
        names.REPLICA: route.replica,
        names.VARIANT: route.variant,
    }
    return told | {name: value for name, value in where.items() if value}


def _end(span: Span, seen: Observation) -> None:
    """Status by the conventions for servers, of RPC and of HTTP alike: what the caller did wrong is no error of ours.

    The name of what went wrong is there in any case.
    """
    failure = seen.failure
    protocol = seen.call.entrance.protocol
    if protocol == "grpc":
        span.attributes[names.RPC_STATUS] = OK.upper() if failure is None else failure.grpc
    elif protocol == "http":
        sent = seen.call.entrance.streams and seen.timing.first_token_s > 0
        span.attributes[names.HTTP_STATUS] = 200 if failure is None or sent else failure.http
    if failure is not None:
        span.attributes[names.ERROR_TYPE] = seen.outcome
        if failure.http >= 500:
            span.failed(seen.outcome, seen.error or seen.outcome)


def _input(request: Request) -> list[Any]:
    """The input as the conventions have messages (the JSON schema of `gen_ai.input.messages`)."""
    if request.messages is None:
        return [{"role": "user", "parts": [{"type": "text", "content": request.prompt or ""}]}]
    return [
        {"role": message.role, "parts": [{"type": "text", "content": message.content}]} for message in request.messages
    ]


def _output(seen: Observation) -> list[Any]:
    finish = seen.finish_reason.name.lower()
    return [{"role": "assistant", "parts": [{"type": "text", "content": seen.answer}], "finish_reason": finish}]


def _cut(messages: list[Any], most: int) -> str:
    """The messages as JSON. Of texts the beginning is kept, so that `most` characters are left of all together."""
    for message in messages:
        for part in message["parts"]:
            part["content"] = part["content"][:most]
            most -= len(part["content"])
    return json.dumps(messages, ensure_ascii=False)
