"""Of local models and embedders: calls that the home answers for a front."""

from __future__ import annotations

from typing import Any

import msgspec

from polyroute.core.event import Finished, Route, Token
from polyroute.core.request import Message, ResponseFormat, RoutingOptions, Sampling


class LocalCall(msgspec.Struct, frozen=True):
    """What a local model needs to know of a call; fields as in `core.call.Call` and `core.request.Request`.

    `tools` are name, description and JSON schema of each.
    """

    request_id: str
    prompt: str | None
    messages: tuple[Message, ...] | None
    sampling: Sampling
    stop: tuple[str, ...]
    response_format: ResponseFormat | None
    tools: tuple[tuple[str, str, dict[str, Any]], ...]
    tool_choice: str
    extra: dict[str, Any]
    routing: RoutingOptions
    deadline: float | None
    start_by: float | None
    wait_for_load: bool
    copy: bool
    trace: tuple[str, str, int, str]


class Run(msgspec.Struct, frozen=True, tag="run"):
    """Answer a call by a local model: `RunStarted`, any number of `RunToken`, `RunFinished`, or `Failed`.

    `fingerprint` is of the options that the front has the model with: what another configuration answers comes without
    a version, and so is kept under no key. `RunToken` comes while the front has taken all but a few of those before,
    which it tells by `More`.
    """

    id: int
    model: str
    fingerprint: str
    call: LocalCall


class RunStarted(msgspec.Struct, frozen=True, tag="run_started"):
    """The answer `id` has begun."""

    id: int
    route: Route


class RunToken(msgspec.Struct, frozen=True, tag="run_token"):
    """A part of the answer `id`."""

    id: int
    token: Token


class RunFinished(msgspec.Struct, frozen=True, tag="run_finished"):
    """The answer `id` is complete."""

    id: int
    finished: Finished


class More(msgspec.Struct, frozen=True, tag="more"):
    """The reader of the answer `id` has taken so many further parts."""

    id: int
    count: int


class Count(msgspec.Struct, frozen=True, tag="count"):
    """Count the tokens of a call's input; answered by `Counted` or `Failed`."""

    id: int
    model: str
    call: LocalCall


class Counted(msgspec.Struct, frozen=True, tag="counted"):
    """Tokens of an input, and the model's context length."""

    id: int
    tokens: int
    context_length: int


class Embed(msgspec.Struct, frozen=True, tag="embed"):
    """Turn a text into a vector by the embedding model `source`; answered by `Embedded`."""

    id: int
    source: str
    text: str


class Embedded(msgspec.Struct, frozen=True, tag="embedded"):
    """The vector of a text; or why there is none."""

    id: int
    vector: bytes = b""
    why_not: str = ""
