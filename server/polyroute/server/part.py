"""Which part of a server a process is: all of it, unless several processes share the ports."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from polyroute.core.backend import Backend
from polyroute.core.config import LimitsConfig, LocalConfig
from polyroute.core.embedder import Embedder
from polyroute.routing.registry import permits_for
from polyroute.routing.stack import PermitsFor
from polyroute.routing.views import CacheStats, ModelView
from polyroute.server.rest.health import Expose
from polyroute.v1.admin_pb2_grpc import AdminServiceServicer

SHARED_AGE_S: Final = 300.0
"""How long callers may use a connection where processes share a port and the file does not say, in seconds."""


@dataclass(frozen=True, slots=True)
class Part:
    """What a process has of a server.

    It listens on the gRPC and HTTP addresses where it is `public`, and on the admin address where it is `admin`; other
    processes listen on the same ones where they are `shared`. `local` and `embedder` stand in for what runs models
    here, and `permits_for` for what has the permits. `owns` says of which models it tells how their replicas are.
    `operator` stands in for the operator's service, `expose` and `cache_stats` for what the process says of itself, and
    `opened` is told of each breaker that opens (model, replica, for how many seconds, and for what), and `after_reload`
    is awaited when a configuration has come into force.
    """

    public: bool = True
    admin: bool = True
    shared: bool = False
    local: Callable[[LocalConfig], Backend] | None = None
    embedder: Callable[[str], Embedder] | None = None
    permits_for: PermitsFor = permits_for
    owns: Callable[[ModelView], bool] = lambda model: True
    operator: AdminServiceServicer | None = None
    expose: Expose | None = None
    cache_stats: Callable[[str], Awaitable[CacheStats]] | None = None
    opened: Callable[[str, str, float, str], None] = lambda model, replica, open_for_s, why: None
    after_reload: Callable[[], Awaitable[None]] | None = None

    def max_age_s(self, limits: LimitsConfig) -> float | None:
        """How long callers may use one connection; None for ever."""
        return limits.max_connection_age or (SHARED_AGE_S if self.shared else None)


WHOLE: Final = Part()
"""The only process of a server."""
