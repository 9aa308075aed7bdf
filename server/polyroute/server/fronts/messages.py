"""What a front process and its home say to each other, and how it is framed.

A frame is its length (4 bytes, big-endian) and one message in MessagePack, tagged with its type, as between a router
and a model's worker. Both directions go over one socket pair; end of file means that the other side is gone. An `id` is
the front's or the home's own number of what it asks, and comes back with the answer.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from polyroute.core.backend import BackendStatus
from polyroute.core.event import Attempt, Finished, Route, Token
from polyroute.core.request import Message, ResponseFormat, RoutingOptions, Sampling
from polyroute.routing.views import CacheStats

LENGTH_BYTES = 4


class Begin(msgspec.Struct, frozen=True, tag="begin"):
    """The first message to a front: where it listens, and what it serves; fields as in `server.settings.Settings`.

    `content` is what stood in the configuration's file, which its messages call `file`; both are empty in single-model
    mode, where `model` is the one that is served. `number` tells the fronts apart, from 0. `admin` is where the home
    answers the operator's calls.
    """

    number: int
    grpc: tuple[str, int]
    http: tuple[str, int]
    admin: tuple[str, int]
    cache_dir: str
    cache_bytes: int | None
    drain_s: float
    redis_url: str | None
    state_url: str | None
    log_format: str
    log_level: str
    file: str = ""
    content: bytes = b""
    model: str = ""


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """What was asked as `id` has ended with an error: the name of its class in `core.errors`, and what that one has."""

    id: int
    kind: str
    message: str
    retry_after_s: float | None = None
    metadata: dict[str, str] = {}
    attempts: tuple[Attempt, ...] = ()
    quoted: str = ""
    shared: bool = False
    more: dict[str, Any] = {}


# Permits


class Ask(msgspec.Struct, frozen=True, tag="ask"):
    """A call wants a permit of `deployment`; `key` is the front's name for these permits. See `routing.lending`."""

    id: int
    key: int
    deployment: str
    caller: str
    deadline: float | None


class Withdraw(msgspec.Struct, frozen=True, tag="withdraw"):
    """Who asked `id` has left; what was asked ends. Answers that are on their way are not wanted any more."""

    id: int


class Lent(msgspec.Struct, frozen=True, tag="lent"):
    """A permit for `id`, on these terms: see `routing.lent_permits.Terms`."""

    id: int
    spare: int
    keep: int
    learns: bool


class GiveBack(msgspec.Struct, frozen=True, tag="give_back"):
    """Permits are free again."""

    key: int
    count: int


class Recall(msgspec.Struct, frozen=True, tag="recall"):
    """Spare permits are wanted back; answered by `Recalled`."""

    key: int


class Recalled(msgspec.Struct, frozen=True, tag="recalled"):
    """The spare permits that there were."""

    key: int
    count: int


class Judged(msgspec.Struct, frozen=True, tag="judged"):
    """A call that got its permit at `began` has its first token, or was too much for the backend."""

    key: int
    began: float
    overloaded: bool


# Calls of local models


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
    """Answer a call by a local model: `RunStarted`, any number of `RunTokens`, `RunFinished`, or `Failed`.

    `RunTokens` come while the front has taken all but a few of those before, which it tells by `More`.
    """

    id: int
    model: str
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


# The whole


class Operate(msgspec.Struct, frozen=True, tag="operate"):
    """An operator's call that came to a front: a method of `AdminService`, and its request in protobuf's form.

    Answered by `Operated` or `Failed`.
    """

    id: int
    method: str
    request: bytes


class Operated(msgspec.Struct, frozen=True, tag="operated"):
    """The answer to an operator's call, in protobuf's form."""

    id: int
    response: bytes


class Standing(msgspec.Struct, frozen=True):
    """How a deployment stands in all processes: calls in flight in others, calls that wait, and the limit."""

    elsewhere: int
    queued: int
    max_concurrency: int


class Stand(msgspec.Struct, frozen=True, tag="stand"):
    """What has changed since the last one: by deployment, and the status of local models."""

    deployments: dict[str, Standing]
    local: dict[str, BackendStatus]


class Busy(msgspec.Struct, frozen=True, tag="busy"):
    """What has changed of a front's permits since the last one, by key: those in use and those spare."""

    permits: dict[int, tuple[str, int, int]]


class Opened(msgspec.Struct, frozen=True, tag="opened"):
    """A front has opened its breaker of a replica, for so many seconds; the home tells the others."""

    model: str
    replica: str
    open_for_s: float
    why: str


class Listening(msgspec.Struct, frozen=True, tag="listening"):
    """The front answers calls."""


class CannotServe(msgspec.Struct, frozen=True, tag="cannot_serve"):
    """The front ends: why, in words."""

    why: str


class Apply(msgspec.Struct, frozen=True, tag="apply"):
    """Put the configuration that stands in `content` in force; answered by `Applied`."""

    id: int
    content: bytes


class Applied(msgspec.Struct, frozen=True, tag="applied"):
    """The configuration is in force; or why not."""

    id: int
    trouble: str = ""


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """One number on `/metrics`; `exemplar` is its labels, value and time."""

    name: str
    labels: dict[str, str]
    value: float
    exemplar: tuple[dict[str, str], float, float | None] | None = None


class Family(msgspec.Struct, frozen=True, array_like=True):
    """The samples of one metric."""

    name: str
    help: str
    kind: str
    unit: str
    samples: list[Sample]


class Collect(msgspec.Struct, frozen=True, tag="collect"):
    """Tell everything that `/metrics` has of this process; answered by `Collected`."""

    id: int


class Collected(msgspec.Struct, frozen=True, tag="collected"):
    """Everything that `/metrics` has of one process."""

    id: int
    families: list[Family]


class LastCounts(msgspec.Struct, frozen=True, tag="last_counts"):
    """What has been counted by a front that ends, of all that must not shrink when it is gone."""

    families: list[Family]


class Scrape(msgspec.Struct, frozen=True, tag="scrape"):
    """Somebody asks a front for `/metrics` with this `Accept`, of the samples of these names or (none) of all.

    Answered by `Exposed` until the last one.
    """

    id: int
    accept: str
    names: tuple[str, ...] = ()


class Exposed(msgspec.Struct, frozen=True, tag="exposed"):
    """A part of `/metrics` of the whole server."""

    id: int
    part: bytes
    last: bool = False


class TellCache(msgspec.Struct, frozen=True, tag="tell_cache"):
    """Tell what the cache holds, of one model or (empty) all; answered by `CacheTold` or `Failed`."""

    id: int
    model: str


class CacheTold(msgspec.Struct, frozen=True, tag="cache_told"):
    """What the cache holds, as one process sees it."""

    id: int
    stats: CacheStats


class Drain(msgspec.Struct, frozen=True, tag="drain"):
    """Take no new calls, let those in flight go on for `grace_s` seconds, and end; in place of a drain that goes on."""

    grace_s: float


ToFront: TypeAlias = (
    Begin
    | Failed
    | Lent
    | Recall
    | RunStarted
    | RunToken
    | RunFinished
    | Counted
    | Embedded
    | Operated
    | Opened
    | Stand
    | Apply
    | Collect
    | Exposed
    | TellCache
    | Drain
)
ToHome: TypeAlias = (
    Ask
    | Withdraw
    | GiveBack
    | Recalled
    | Judged
    | Run
    | More
    | Count
    | Embed
    | Operate
    | Busy
    | Opened
    | Listening
    | CannotServe
    | Applied
    | Collected
    | LastCounts
    | Scrape
    | CacheTold
    | Failed
)

_encoder = msgspec.msgpack.Encoder()
to_front_decoder = msgspec.msgpack.Decoder(ToFront)
to_home_decoder = msgspec.msgpack.Decoder(ToHome)


def encode_frame(message: ToFront | ToHome) -> bytes:
    """The message with its length before it."""
    frame = bytearray(LENGTH_BYTES)
    _encoder.encode_into(message, frame, LENGTH_BYTES)
    frame[:LENGTH_BYTES] = (len(frame) - LENGTH_BYTES).to_bytes(LENGTH_BYTES, "big")
    return bytes(frame)
