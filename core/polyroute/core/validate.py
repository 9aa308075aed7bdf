"""Whether a request makes sense at all: one check for gRPC and REST alike, naming the field and the limit."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

from msgspec.structs import astuple

from polyroute.core.config import LimitsConfig
from polyroute.core.errors import InvalidArgument, clip
from polyroute.core.request import ROLES, Json, Message, Request, ResponseFormat, RoutingOptions, Sampling, Tool

MAX_STOPS: Final = 16
MAX_STOP_CHARS: Final = 1024
MAX_TOOLS: Final = 128
MAX_LABELS: Final = 16
MAX_LABEL_CHARS: Final = 256
MAX_NAME_CHARS: Final = 256
MAX_REQUEST_ID_CHARS: Final = 128
MAX_CHOICES: Final = 1024
MAX_JSON_DEPTH: Final = 32
MAX_JSON_VALUES: Final = 20_000
"""Most values in one structured field, such as a tool's parameters or `extra`; nested ones count each."""

SAMPLING_RANGES: Final[Mapping[str, tuple[float, float, bool]]] = {
    # field: (lowest, highest, whether the lowest itself is allowed)
    "max_tokens": (1, 1_048_576, True),
    "temperature": (0, 100, True),
    "top_p": (0, 1, False),
    "top_k": (0, 1_000_000, True),
    "min_p": (0, 1, True),
    "repetition_penalty": (0, 100, False),
    "presence_penalty": (-2, 2, True),
    "frequency_penalty": (-2, 2, True),
    "seed": (-(2**63), 2**63 - 1, True),
    "logprobs": (0, 20, True),
}
"""What each field of `Sampling` may be, in their order; a test holds it against the class."""

_SAY_TEXT_ONLY = ("system", "user", "assistant")
_ROUTED_BY_NOTHING = RoutingOptions()
_TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_TOOL_NAME_FORM = "must have 1 to 64 letters, digits, _ or -"


def validate(request: Request, limits: LimitsConfig, names: Mapping[str, str] | None = None) -> None:
    """Raises `InvalidArgument` for the first thing wrong with `request`.

    `names` renames top-level fields for dialects that call them otherwise (`{"max_tokens": "max_new_tokens"}`).
    """
    try:
        _name("model", request.model, MAX_NAME_CHARS, spaces=False)
        _input(request, limits)
        _sampling(request.sampling)
        _stops(request.stop)
        if request.response_format is not None:
            _response_format(request.response_format)
        if request.tools or request.tool_choice:
            _tools(request.tools, request.tool_choice)
        if request.extra:
            _json("extra", request.extra)
        if request.request_id:
            check_request_id(request.request_id)
        if request.routing != _ROUTED_BY_NOTHING:
            for field in ("affinity_key", "user", "session", "variant"):
                _name(f"routing.{field}", getattr(request.routing, field), MAX_NAME_CHARS)
        if request.cache.max_age_s is not None and not 0 <= request.cache.max_age_s < math.inf:
            raise InvalidArgument("cache.max_age", f"{request.cache.max_age_s:g} s; must be 0 or more")
        if request.labels:
            _labels(request.labels)
    except InvalidArgument as error:
        head, dot, rest = error.field.partition(".")
        base, bracket, index = head.partition("[")
        renamed = (names or {}).get(base, base) + bracket + index + dot + rest
        if renamed == error.field:
            raise
        raise InvalidArgument(renamed, error.problem, quoted=error.quoted) from None


def is_model_name(text: str) -> bool:
    """Whether it may be the name of a model or of a route; what may not is perhaps a prompt in the wrong place."""
    return len(text) <= MAX_NAME_CHARS and text.isprintable() and not any(c.isspace() for c in text)


def _refused(field: str, value: str, problem: str) -> InvalidArgument:
    """Says that the field has this value, and what is wrong with it."""
    shown = f"`{clip(value, 80)}`"
    return InvalidArgument(field, f"{shown} {problem}", quoted=shown)


def _name(field: str, value: str, limit: int, *, spaces: bool = True) -> None:
    """Checks a name; the one white space that is printable is the space."""
    if len(value) > limit:
        raise InvalidArgument(field, f"{len(value)} characters, limit {limit}")
    if not value.isprintable() or (not spaces and " " in value):
        what = "control characters" if spaces else "spaces or control characters"
        raise _refused(field, value, f"has {what}, which are not allowed")


def check_request_id(value: str) -> None:
    """Raises `InvalidArgument` for what no request can be called; a request without an ID is fine."""
    _name("request_id", value, MAX_REQUEST_ID_CHARS, spaces=False)
    if not value.isascii():
        raise InvalidArgument("request_id", "must be ASCII")


def _input(request: Request, limits: LimitsConfig) -> None:
    prompt, messages = request.prompt, request.messages
    if messages is None:
        if prompt is None:
            raise InvalidArgument("prompt", "give prompt or messages")
        if not prompt:
            raise InvalidArgument("prompt", "must not be empty")
        field, size = "prompt", _utf8_size("prompt", prompt)
    else:
        if prompt is not None:
            raise InvalidArgument("prompt", "give prompt or messages, not both")
        if not messages:
            raise InvalidArgument("messages", "must not be empty")
        if len(messages) > limits.max_messages:
            raise InvalidArgument("messages", f"{len(messages)} messages, limit {limits.max_messages}")
        if messages[-1].role == "user" and not messages[-1].content:
            last = len(messages) - 1
            raise InvalidArgument(f"messages[{last}].content", "must not be empty in the user's last message")
        field, size = "messages", 0
        for i, message in enumerate(messages):
            size += _message(i, message)
    if size > limits.max_prompt_bytes:
        raise InvalidArgument(field, f"{size} bytes, limit {int(limits.max_prompt_bytes)}")


def _utf8_size(field: str, text: str) -> int:
    if text.isascii():
        return len(text)
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        raise InvalidArgument(field, "has half a surrogate pair, which no UTF-8 text can hold") from None


def _message(i: int, message: Message) -> int:
    """Checks one message and returns its size in bytes."""
    if (
        message.role in _SAY_TEXT_ONLY
        and not (message.tool_calls or message.tool_call_id)
        and message.content.isascii()
    ):
        return len(message.content)  # the commonest by far
    path = f"messages[{i}]"
    if not message.role:
        raise InvalidArgument(f"{path}.role", f"is required: one of {', '.join(ROLES)}")
    if message.role not in ROLES:
        raise _refused(f"{path}.role", message.role, f"is none of {', '.join(ROLES)}")
    if message.tool_calls and message.role != "assistant":
        raise InvalidArgument(f"{path}.tool_calls", "only an assistant message may have them")
    if message.role == "tool" and not message.tool_call_id:
        raise InvalidArgument(f"{path}.tool_call_id", "a tool message must say which call it answers")
    _name(f"{path}.tool_call_id", message.tool_call_id, MAX_NAME_CHARS)
    size = _utf8_size(f"{path}.content", message.content)
    for j, call in enumerate(message.tool_calls):
        if not _TOOL_NAME.fullmatch(call.name):
            raise _refused(f"{path}.tool_calls[{j}].name", call.name, _TOOL_NAME_FORM)
        _name(f"{path}.tool_calls[{j}].id", call.id, MAX_NAME_CHARS)
        size += _utf8_size(f"{path}.tool_calls[{j}].arguments", call.arguments)
    return size


@lru_cache(maxsize=256)  # few of them differ among many requests, and none that is refused is kept
def _sampling(sampling: Sampling) -> None:
    for value, (field, (low, high, closed)) in zip(astuple(sampling), SAMPLING_RANGES.items(), strict=True):
        if value is None:
            continue
        if not low <= value <= high or (value == low and not closed):  # NaN fails every comparison
            at_least = "from" if closed else "above"
            # REST takes whole numbers of any length, which `g` cannot show.
            shown = f"{value:g}" if isinstance(value, float) or abs(value) < 2**64 else clip(str(value), 40)
            raise InvalidArgument(field, f"{shown}; must be {at_least} {low:,} to {high:,}".replace(",", ""))


def _stops(stops: tuple[str, ...]) -> None:
    if len(stops) > MAX_STOPS:
        raise InvalidArgument("stop", f"{len(stops)} stop strings, limit {MAX_STOPS}")
    for i, stop in enumerate(stops):
        if not stop:
            raise InvalidArgument(f"stop[{i}]", "must not be empty")
        if len(stop) > MAX_STOP_CHARS:
            raise InvalidArgument(f"stop[{i}]", f"{len(stop)} characters, limit {MAX_STOP_CHARS}")
        _utf8_size(f"stop[{i}]", stop)


def _response_format(form: ResponseFormat) -> None:
    path = f"response_format.{form.kind}"
    if isinstance(form.value, tuple):
        if not form.value or not all(form.value):
            raise InvalidArgument(path, "must have choices, none of them empty")
        if len(form.value) > MAX_CHOICES:
            raise InvalidArgument(path, f"{len(form.value)} choices, limit {MAX_CHOICES}")
        return
    if not form.value:
        raise InvalidArgument(path, "must not be empty")
    if form.kind == "json_schema":
        try:
            schema = json.loads(form.value)
        except (ValueError, RecursionError) as error:
            raise InvalidArgument(path, f"is not JSON: {clip(str(error), 200)}") from None
        if not isinstance(schema, dict):
            raise InvalidArgument(path, "must be a JSON object")


def _tools(tools: tuple[Tool, ...], choice: str) -> None:
    if len(tools) > MAX_TOOLS:
        raise InvalidArgument("tools", f"{len(tools)} tools, limit {MAX_TOOLS}")
    seen: set[str] = set()
    for i, tool in enumerate(tools):
        if not _TOOL_NAME.fullmatch(tool.name):
            raise _refused(f"tools[{i}].name", tool.name, _TOOL_NAME_FORM)
        if tool.name in seen:
            raise InvalidArgument(f"tools[{i}].name", f"`{tool.name}` is listed twice")
        seen.add(tool.name)
        _json(f"tools[{i}].parameters", tool.parameters)
    if choice and choice not in seen | {"auto", "none", "required"}:
        raise _refused("tool_choice", choice, "is none of auto, none, required and the tools")
    if choice == "required" and not tools:
        raise InvalidArgument("tool_choice", "required, but there are no tools")


def _json(field: str, value: Mapping[str, Json]) -> None:
    """Checks that `value` is finite, neither nested too deeply nor too large to be passed on."""
    values = 0
    level: list[Json | Mapping[str, Json]] = [value]
    for _ in range(MAX_JSON_DEPTH):
        values += len(level)
        if values > MAX_JSON_VALUES:
            raise InvalidArgument(field, f"has more than {MAX_JSON_VALUES} values, the limit")
        for item in level:
            if isinstance(item, float) and not math.isfinite(item):
                raise InvalidArgument(field, f"has {item}, which JSON cannot hold")
        level = [inner for item in level for inner in _inner(item)]
        if not level:
            return
    raise InvalidArgument(field, f"is nested more than {MAX_JSON_DEPTH} deep")


def _inner(value: Json | Mapping[str, Json]) -> Iterable[Json]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list) else ()


def _labels(labels: Mapping[str, str]) -> None:
    if len(labels) > MAX_LABELS:
        raise InvalidArgument("labels", f"{len(labels)} labels, limit {MAX_LABELS}")
    for key, value in labels.items():
        if not key:
            raise InvalidArgument("labels", "a key is empty")
        _name("labels", key, MAX_LABEL_CHARS)
        _name(f"labels.{key}", value, MAX_LABEL_CHARS)
