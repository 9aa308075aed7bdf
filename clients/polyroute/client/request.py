"""Builds the protocol's requests from what a caller of the client writes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from typing import Any, TypeAlias, TypedDict, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from polyroute.client.answers import ToolCall
from polyroute.client.enums import CacheMode
from polyroute.client.wire import enum_number
from polyroute.v1 import inference_pb2 as pb

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation; `role` is `system`, `user`, `assistant` or `tool`."""

    role: str
    content: str = ""
    tool_calls: Sequence[ToolCall | Mapping[str, Any]] = ()
    tool_call_id: str = ""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may ask the caller to run; `parameters` is the JSON schema of its arguments."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Routing:
    """How a request may be routed.

    Calls of equal `affinity_key` prefer the same replica; `user` and `session` keep theirs on one variant; `variant`
    pins one. `no_shadow` forbids copies, `no_fallback` answers from anywhere but the first choice.
    """

    affinity_key: str = ""
    user: str = ""
    session: str = ""
    variant: str = ""
    no_shadow: bool = False
    no_fallback: bool = False


@dataclass(frozen=True, slots=True)
class Cache:
    """How a request may use the cache; `max_age_s` is the oldest answer to accept, in seconds.

    `mode` may be written in capital letters and with dashes, too. With `original_pace` a stored answer comes at the
    pace at which it was generated, otherwise at once.
    """

    mode: CacheMode | str = CacheMode.UNSPECIFIED
    max_age_s: float | None = None
    original_pace: bool = False


@dataclass(frozen=True, slots=True)
class JsonSchema:
    """The answer is JSON of this schema, given as a mapping or as JSON text."""

    schema: Mapping[str, Any] | str


@dataclass(frozen=True, slots=True)
class Regex:
    """The whole answer matches this regular expression."""

    pattern: str


@dataclass(frozen=True, slots=True)
class Choice:
    """The answer is one of these."""

    choices: Sequence[str]


Prompt: TypeAlias = str | Iterable[Message | Mapping[str, Any]]
"""A text that the model continues as it stands, or a conversation for its chat template, oldest message first."""


class GenerateOptions(TypedDict, total=False):
    """Keywords of `generate`, `stream` and `explain`; what is absent or None is left to the model and the server."""

    model: str | None
    """Model ID or route; the server's default when absent."""
    max_tokens: int | None
    """Most tokens to generate; at least 1."""
    temperature: float | None
    """0 to 100; 0 is greedy."""
    top_p: float | None
    """Keep the smallest set of tokens with at least this probability; above 0, at most 1."""
    top_k: int | None
    """Keep only the k most likely tokens; 0 keeps all."""
    min_p: float | None
    """Keep tokens at least this likely, relative to the most likely one; 0 to 1."""
    repetition_penalty: float | None
    """Divides the logits of tokens seen before; above 0, at most 100."""
    presence_penalty: float | None
    """Subtracted from the logits of tokens generated before; -2 to 2."""
    frequency_penalty: float | None
    """Subtracted from the logits of generated tokens, once for each time; -2 to 2."""
    seed: int | None
    """Makes sampling repeatable on the same model version."""
    logprobs: int | None
    """Return log probabilities, with this many alternatives a token; 0 to 20."""
    stop: str | Sequence[str] | None
    """Strings that end the answer and are not returned; at most 16."""
    response_format: JsonSchema | Regex | Choice | None
    """Constrains what the answer may look like."""
    tools: Sequence[Tool | Mapping[str, Any]] | None
    """Tools that the model may call."""
    tool_choice: str | None
    """`auto`, `none`, `required`, or a tool's name."""
    extra: Mapping[str, Any] | None
    """More fields for an OpenAI-compatible peer, passed on as they are."""
    request_id: str | None
    """Name of this request in logs, traces and records."""
    routing: Routing | None
    """How this request may be routed."""
    cache: Cache | CacheMode | str | None
    """How this request may use the cache: a `Cache`, or a mode alone, such as `"bypass"`."""
    labels: Mapping[str, str] | None
    """The caller's own labels, kept in records and spans only; at most 16."""


def build_request(prompt: Prompt, options: GenerateOptions) -> pb.GenerateRequest:
    """The request of `generate`. Raises `TypeError` or `ValueError` for what no request can hold."""
    unknown = sorted(set(options) - set(GenerateOptions.__annotations__))
    if unknown:
        raise TypeError(f"unknown keyword `{unknown[0]}`; known are {', '.join(GenerateOptions.__annotations__)}")
    request = pb.GenerateRequest()
    set_input(request, prompt)
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    for name, value in given.items():
        try:
            write = _WRITERS.get(name)
            if write is None:
                setattr(request, name, value)
            else:
                write(request, value)
        except (TypeError, ValueError) as error:  # protobuf's own words do not name the field
            raise type(error)(str(error) if str(error).startswith(name) else f"{name}: {error}") from None
    return request


def set_input(request: pb.GenerateRequest | pb.CountTokensRequest, prompt: Prompt) -> None:
    """Writes a prompt or a conversation into a request that takes either."""
    if isinstance(prompt, str):
        request.prompt = prompt
    elif isinstance(prompt, Mapping) or not isinstance(prompt, Iterable):
        raise TypeError(f"prompt: a string or a list of messages, not {type(prompt).__name__}")
    else:
        request.messages.SetInParent()
        request.messages.messages.extend(_message(i, message) for i, message in enumerate(prompt))


def wire_tools(tools: Sequence[Tool | Mapping[str, Any]]) -> list[pb.Tool]:
    """Tools as the protocol has them."""
    read = [_as(Tool, tool, f"tools[{i}]") for i, tool in enumerate(tools)]
    return [pb.Tool(name=t.name, description=t.description, parameters=_struct(t.parameters)) for t in read]


def _message(index: int, given: Message | Mapping[str, Any]) -> pb.Message:
    path = f"messages[{index}]"
    message = _as(Message, given, path)
    calls = [_as(ToolCall, call, f"{path}.tool_calls[{i}]") for i, call in enumerate(message.tool_calls)]
    return pb.Message(
        role=message.role,
        content=message.content,
        tool_calls=[pb.ToolCall(**asdict(call)) for call in calls],
        tool_call_id=message.tool_call_id,
    )


def _as(cls: type[T], given: T | Mapping[str, Any], path: str) -> T:
    """`given` as a `cls`, from a mapping of its fields if need be."""
    if isinstance(given, cls):
        return given
    if not isinstance(given, Mapping):
        raise TypeError(f"{path}: a {cls.__name__} or a mapping of its fields, not {type(given).__name__}")
    known = [f.name for f in fields(cls)]  # type: ignore[arg-type]  # T is one of our dataclasses
    unknown = sorted(str(key) for key in given if key not in known)
    if unknown:
        raise ValueError(f"{path}: unknown key `{unknown[0]}`; known are {', '.join(known)}")
    try:
        return cls(**given)
    except TypeError:
        missing = next(name for name in known if name not in given)
        raise ValueError(f"{path}: `{missing}` is missing") from None


def _stop(request: pb.GenerateRequest, stop: str | Sequence[str]) -> None:
    request.stop.extend([stop] if isinstance(stop, str) else stop)


def _response_format(request: pb.GenerateRequest, form: JsonSchema | Regex | Choice) -> None:
    if isinstance(form, JsonSchema):
        schema = form.schema
        request.response_format.json_schema = schema if isinstance(schema, str) else json.dumps(schema)
    elif isinstance(form, Regex):
        request.response_format.regex = form.pattern
    elif isinstance(form, Choice):
        request.response_format.choice.SetInParent()
        request.response_format.choice.choices.extend(form.choices)
    else:
        raise TypeError(f"response_format: a JsonSchema, Regex or Choice, not {type(form).__name__}")


def _tools(request: pb.GenerateRequest, tools: Sequence[Tool | Mapping[str, Any]]) -> None:
    request.tools.extend(wire_tools(tools))


def _extra(request: pb.GenerateRequest, extra: Mapping[str, Any]) -> None:
    request.extra.CopyFrom(_struct(extra))


def _routing(request: pb.GenerateRequest, routing: Routing) -> None:
    request.routing.CopyFrom(pb.RoutingOptions(**asdict(routing)))


def _cache(request: pb.GenerateRequest, given: Cache | CacheMode | str) -> None:
    cache = given if isinstance(given, Cache) else Cache(given)
    try:
        mode = CacheMode(cache.mode.lower().replace("-", "_").removeprefix("cache_mode_"))
    except ValueError:
        raise ValueError(f"cache: `{cache.mode}` is none of {', '.join(CacheMode)}") from None
    number = enum_number(pb.CacheMode.DESCRIPTOR, mode)
    request.cache.SetInParent()
    request.cache.mode = number  # type: ignore[assignment]  # numbers and enum values are one type on the wire
    if cache.max_age_s is not None:
        request.cache.max_age.CopyFrom(duration(cache.max_age_s))
    request.cache.original_pace = cache.original_pace


def _labels(request: pb.GenerateRequest, labels: Mapping[str, str]) -> None:
    request.labels.update(labels)


_WRITERS: Mapping[str, Any] = {
    "stop": _stop,
    "response_format": _response_format,
    "tools": _tools,
    "extra": _extra,
    "routing": _routing,
    "cache": _cache,
    "labels": _labels,
}


def duration(seconds: float) -> Duration:
    """Seconds as the protocol has them."""
    nanos = round(seconds * 1e9)
    whole = int(nanos / 1e9)
    return Duration(seconds=whole, nanos=nanos - whole * 1_000_000_000)


def timestamp(moment: datetime) -> Timestamp:
    """A moment as the protocol has it. Raises `ValueError` when its time zone is not known."""
    if moment.tzinfo is None:
        raise ValueError("a datetime without a time zone names no moment; give it one, such as datetime.UTC")
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def _struct(values: Mapping[str, Any]) -> Struct:
    struct = Struct()
    struct.update(dict(values))
    return struct
