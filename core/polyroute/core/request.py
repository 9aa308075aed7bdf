"""What a caller asks for: the request, in the router's own words.

`Request` mirrors `polyroute.v1.GenerateRequest` field by field and under the same names; only the sampling parameters
stand together in a class of their own. Everything here is frozen and made of plain values, so that a request can be
compared, encoded canonically and handed to a worker process.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Literal, TypeAlias

import msgspec

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
"""Any JSON value."""

ROLES = ("system", "user", "assistant", "tool")
"""Who may speak in a conversation."""


class CacheMode(Enum):
    """What a request asks of the cache; names as in `polyroute.v1.CacheMode`."""

    UNSPECIFIED = 0
    BYPASS = 1
    REFRESH = 2
    ONLY_IF_CACHED = 3


class ToolCall(msgspec.Struct, frozen=True, gc=False):
    """A model's request to run a tool; in a stream, the `arguments` of equal `index` concatenate."""

    id: str = ""
    name: str = ""
    arguments: str = ""
    index: int = 0


class Message(msgspec.Struct, frozen=True, gc=False):
    """One turn of a conversation."""

    role: str
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""


class Tool(msgspec.Struct, frozen=True, gc=False):
    """A function that the model may ask the caller to run; `parameters` is a JSON schema."""

    name: str
    description: str = ""
    parameters: Mapping[str, Json] = msgspec.field(default_factory=dict)


class ResponseFormat(msgspec.Struct, frozen=True, gc=False):
    """A constraint on the answer: JSON schema text, a regular expression, or a list of choices."""

    kind: Literal["json_schema", "regex", "choice"]
    value: str | tuple[str, ...]


class Sampling(msgspec.Struct, frozen=True, gc=False):
    """How tokens are chosen. None means the model's own default; temperature 0 is greedy."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    logprobs: int | None = None


class RoutingOptions(msgspec.Struct, frozen=True, gc=False):
    """How the request may be routed."""

    affinity_key: str = ""
    user: str = ""
    session: str = ""
    variant: str = ""
    no_shadow: bool = False
    no_fallback: bool = False


class CacheOptions(msgspec.Struct, frozen=True, gc=False):
    """How the request may use the cache; `max_age_s` is in seconds.

    `original_pace` has a stored answer come at the pace at which it was generated, instead of at once.
    """

    mode: CacheMode = CacheMode.UNSPECIFIED
    max_age_s: float | None = None
    original_pace: bool = False


class Request(msgspec.Struct, frozen=True, gc=False):
    """One request for one answer. Exactly one of `prompt` and `messages` is set once it is validated."""

    model: str = ""
    prompt: str | None = None
    messages: tuple[Message, ...] | None = None
    sampling: Sampling = Sampling()
    stop: tuple[str, ...] = ()
    response_format: ResponseFormat | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: str = ""
    extra: Mapping[str, Json] = msgspec.field(default_factory=dict)
    request_id: str = ""
    routing: RoutingOptions = RoutingOptions()
    cache: CacheOptions = CacheOptions()
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
