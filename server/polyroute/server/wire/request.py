"""Requests: from `polyroute.v1` messages to `polyroute.core.request`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from polyroute.core.errors import InvalidArgument
from polyroute.core.request import (
    CacheMode,
    CacheOptions,
    Message,
    Request,
    ResponseFormat,
    RoutingOptions,
    Sampling,
    Tool,
    ToolCall,
)
from polyroute.core.validate import MAX_TOOLS
from polyroute.server.wire.values import plain, seconds_of
from polyroute.v1 import inference_pb2 as pb

_SAMPLING: Final = (
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "logprobs",
)


_NO_ROUTING: Final = RoutingOptions()
_NO_CACHE_OPTIONS: Final = CacheOptions()


def request_from_wire(wire: pb.GenerateRequest, max_messages: int | None = None) -> Request:
    """A request as core knows it; what only the wire can get wrong raises `InvalidArgument`.

    More than `max_messages` are refused before they are turned into anything, which would take its time.
    """
    prompt, messages = _input(wire, max_messages)
    return Request(
        model=wire.model,
        prompt=prompt,
        messages=messages,
        sampling=Sampling(**{name: getattr(wire, name) for name in _SAMPLING if wire.HasField(name)}),
        stop=tuple(wire.stop),
        response_format=_response_format(wire.response_format) if wire.HasField("response_format") else None,
        tools=_tools(wire.tools),
        tool_choice=wire.tool_choice,
        extra=plain("extra", wire.extra) if wire.HasField("extra") else {},
        request_id=wire.request_id,
        routing=_routing(wire.routing) if wire.HasField("routing") else _NO_ROUTING,
        cache=_cache(wire.cache) if wire.HasField("cache") else _NO_CACHE_OPTIONS,
        labels=dict(wire.labels),
    )


def request_from_count(wire: pb.CountTokensRequest, max_messages: int | None = None) -> Request:
    """The request whose tokens are to be counted; raises as `request_from_wire` does."""
    prompt, messages = _input(wire, max_messages)
    return Request(model=wire.model, prompt=prompt, messages=messages, tools=_tools(wire.tools))


def tool_call_from_wire(wire: pb.ToolCall) -> ToolCall:
    """A tool call, whole or in part."""
    return ToolCall(id=wire.id, name=wire.name, arguments=wire.arguments, index=wire.index)


def _input(
    wire: pb.GenerateRequest | pb.CountTokensRequest, max_messages: int | None
) -> tuple[str | None, tuple[Message, ...] | None]:
    count = len(wire.messages.messages)
    if max_messages is not None and count > max_messages:
        raise InvalidArgument("messages", f"{count} messages, limit {max_messages}")
    prompt = wire.prompt if wire.HasField("prompt") else None
    messages = tuple(map(_message, wire.messages.messages)) if wire.HasField("messages") else None
    return prompt, messages


def _message(wire: pb.Message) -> Message:
    return Message(
        role=wire.role,
        content=wire.content,
        tool_calls=tuple(map(tool_call_from_wire, wire.tool_calls)),
        tool_call_id=wire.tool_call_id,
    )


def _tools(wire: Sequence[pb.Tool]) -> tuple[Tool, ...]:
    if len(wire) > MAX_TOOLS:  # before they are turned into anything, which would take its time
        raise InvalidArgument("tools", f"{len(wire)} tools, limit {MAX_TOOLS}")
    return tuple(Tool(t.name, t.description, plain(f"tools[{i}].parameters", t.parameters)) for i, t in enumerate(wire))


def _response_format(wire: pb.ResponseFormat) -> ResponseFormat:
    kind = wire.WhichOneof("format")
    if kind == "json_schema":
        return ResponseFormat("json_schema", wire.json_schema)
    if kind == "regex":
        return ResponseFormat("regex", wire.regex)
    if kind == "choice":
        return ResponseFormat("choice", tuple(wire.choice.choices))
    raise InvalidArgument("response_format", "give one of json_schema, regex and choice")


def _routing(wire: pb.RoutingOptions) -> RoutingOptions:
    return RoutingOptions(
        affinity_key=wire.affinity_key,
        user=wire.user,
        session=wire.session,
        variant=wire.variant,
        no_shadow=wire.no_shadow,
        no_fallback=wire.no_fallback,
    )


def _cache(wire: pb.CacheOptions) -> CacheOptions:
    try:
        mode = CacheMode(wire.mode)
    except ValueError:
        raise InvalidArgument("cache.mode", f"{wire.mode} is no cache mode") from None
    return CacheOptions(
        mode=mode,
        max_age_s=seconds_of(wire.max_age) if wire.HasField("max_age") else None,
        original_pace=wire.original_pace,
    )
