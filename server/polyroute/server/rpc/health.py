"""`grpc.health.v1`: how ready the server, its services and each of its models are."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, Final

import grpc.aio
from grpc_health.v1 import health_pb2 as pb
from grpc_health.v1.health_pb2_grpc import HealthServicer

from polyroute.core.backend import ModelState
from polyroute.core.errors import NotFound, clip
from polyroute.routing.gateway import Gateway

INTERVAL_S: Final = 0.2
"""How often an open Watch looks, in seconds."""

_SERVING: Final = pb.HealthCheckResponse.SERVING
_NOT_SERVING: Final = pb.HealthCheckResponse.NOT_SERVING
_UNKNOWN: Final = pb.HealthCheckResponse.SERVICE_UNKNOWN


class Health(HealthServicer):
    """Health under three kinds of names: `` for the server, the full names of its services, and the IDs of models.

    The server and the services that run models are SERVING once the default model answers; a model while it is warm.
    The stock servicer has no List, and an open Watch of it keeps a server from stopping.
    """

    def __init__(
        self,
        gateway: Gateway,
        *,
        answering: Iterable[str],
        standing: Iterable[str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`answering` are services that need the default model, `standing` those that serve as long as they run."""
        self._gateway = gateway
        self._answering = ("", *answering)
        self._standing = tuple(standing)
        self._clock = clock
        self._ended = asyncio.Event()
        self._seen: dict[str, int] = {}
        self._seen_at = float("-inf")

    def end(self) -> None:
        """From now on nothing is SERVING, and every Watch says so and ends."""
        self._seen_at = float("-inf")
        self._ended.set()

    async def Check(self, request: pb.HealthCheckRequest, context: Any) -> pb.HealthCheckResponse:  # noqa: N802
        status = self._statuses().get(request.service)
        if status is None:
            name = request.service
            raise NotFound("service", name, f"service: no service or model `{clip(name, 200)}`")
        return pb.HealthCheckResponse(status=status)

    async def List(self, request: Any, context: Any) -> Any:  # noqa: N802
        # The published type stubs do not know List's messages yet.
        return pb.HealthListResponse(  # type: ignore[attr-defined]
            statuses={name: pb.HealthCheckResponse(status=status) for name, status in self._statuses().items()}
        )

    async def Watch(  # noqa: N802
        self, request: pb.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.HealthCheckResponse]:
        told: int | None = None
        while True:
            ended = self._ended.is_set()
            status = self._recent().get(request.service, _UNKNOWN)
            if status != told:
                told = status
                yield pb.HealthCheckResponse(status=status)
            if ended:
                return
            try:
                await asyncio.wait_for(self._ended.wait(), INTERVAL_S)
            except TimeoutError:
                continue

    def _recent(self) -> dict[str, int]:
        """All statuses, looked up once an interval however many watch."""
        now = self._clock()
        if now - self._seen_at >= INTERVAL_S / 2:
            self._seen, self._seen_at = self._statuses(), now
        return self._seen

    def _statuses(self) -> dict[str, int]:
        up = not self._ended.is_set()
        statuses = {view.id: _as(up and view.status.state is ModelState.WARM) for view in self._gateway.models()}
        statuses |= dict.fromkeys(self._answering, _as(up and self._gateway.ready()))
        return statuses | dict.fromkeys(self._standing, _as(up))


def _as(serving: bool) -> int:
    return _SERVING if serving else _NOT_SERVING
