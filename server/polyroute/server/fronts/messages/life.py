"""Of a front's life and the server as a whole: its beginning, configuration, standing, operator and end."""

from __future__ import annotations

import msgspec

from polyroute.core.backend import BackendStatus


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


class Opened(msgspec.Struct, frozen=True, tag="opened"):
    """A front has opened its breaker of a replica, for so many seconds; the home tells the others."""

    model: str
    replica: str
    open_for_s: float
    why: str


class Listening(msgspec.Struct, frozen=True, tag="listening"):
    """The front answers calls."""


class Alive(msgspec.Struct, frozen=True, tag="alive"):
    """The front that listens still goes round in its event loop."""


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


class Drain(msgspec.Struct, frozen=True, tag="drain"):
    """Take no new calls, let those in flight go on for `grace_s` seconds, and end; in place of a drain that goes on."""

    grace_s: float
