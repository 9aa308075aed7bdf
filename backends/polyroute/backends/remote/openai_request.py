"""A request as OpenAI-compatible peers take it, with vLLM's names for what OpenAI does not have.

Sources: OpenAI API reference ("Create chat completion", "Create completion"); vLLM documentation, "OpenAI-Compatible
Server" (extra parameters) and "Structured Outputs".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from polyroute.backends.remote.dialect import Outgoing
from polyroute.core.errors import InvalidArgument, Unsupported
from polyroute.core.request import Message, Request, ResponseFormat, Tool, ToolCall

_SAMPLING = (
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "seed",
)
RESERVED = frozenset(
    {
        *_SAMPLING,
        "model",
        "prompt",
        "messages",
        "n",
        "stream",
        "stream_options",
        "logprobs",
        "top_logprobs",
        "stop",
        "response_format",
        "structured_outputs",
        "tools",
        "tool_choice",
        "user",
    }
)
"""Keys that `extra` must not hold: they are written here, or (`n`) would change what an answer is."""


def outgoing(request: Request, peer_model: str) -> Outgoing:
    """`POST /v1/chat/completions` for messages, `/v1/completions` for a prompt; always as a stream with its usage."""
    body: dict[str, Any] = {"model": peer_model}
    if request.messages is not None:
        path = "/v1/chat/completions"
        body["messages"] = [_message(message) for message in request.messages]
        body.update(_chat_only(request))
    else:
        path = "/v1/completions"
        body["prompt"] = request.prompt
        body.update(_completion_only(request))
    for name in _SAMPLING:
        value = getattr(request.sampling, name)
        if value is not None:
            body[name] = value
    if request.stop:
        body["stop"] = list(request.stop)
    if request.routing.user:
        body["user"] = request.routing.user
    for key, value in request.extra.items():
        if key in RESERVED:
            raise InvalidArgument("extra", f"`{key}` has a field of its own, or cannot be changed")
        body[key] = value
    body["stream"] = True
    body["stream_options"] = {"include_usage": True}
    return Outgoing(path, body)


def _chat_only(request: Request) -> Iterator[tuple[str, Any]]:
    if request.sampling.logprobs is not None:
        yield "logprobs", True
        yield "top_logprobs", request.sampling.logprobs
    if request.tools:
        yield "tools", [_tool(tool) for tool in request.tools]
    if request.tool_choice in ("auto", "none", "required"):
        yield "tool_choice", request.tool_choice
    elif request.tool_choice:
        yield "tool_choice", {"type": "function", "function": {"name": request.tool_choice}}
    form = request.response_format
    if form is None:
        return
    if form.kind == "json_schema":
        yield "response_format", {"type": "json_schema", "json_schema": {"name": "answer", "schema": _schema(form)}}
    else:
        yield "structured_outputs", {form.kind: form.value}


def _completion_only(request: Request) -> Iterator[tuple[str, Any]]:
    if request.sampling.logprobs is not None:
        yield "logprobs", request.sampling.logprobs
    for name in ("tools", "tool_choice"):
        if getattr(request, name):
            raise Unsupported(name, "the peer takes tools with messages only, not with a prompt")
    form = request.response_format
    if form is None:
        return
    if form.kind == "json_schema":  # OpenAI's completions have no `response_format`; vLLM's take this
        yield "structured_outputs", {"json": _schema(form)}
    else:
        yield "structured_outputs", {form.kind: form.value}


def _schema(form: ResponseFormat) -> Any:
    try:
        return orjson.loads(form.value) if isinstance(form.value, str) else None
    except ValueError as error:
        raise InvalidArgument("response_format.json_schema", "is not JSON") from error


def _message(message: Message) -> dict[str, Any]:
    body: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        body["content"] = message.content or None
        body["tool_calls"] = [_tool_call(call) for call in message.tool_calls]
    if message.tool_call_id:
        body["tool_call_id"] = message.tool_call_id
    return body


def _tool_call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    if tool.parameters:
        function["parameters"] = tool.parameters
    return {"type": "function", "function": function}
