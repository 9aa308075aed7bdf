"""`grpc.health.v1`: how ready the server, its services and each of its models are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
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
    ) -> None:
        """`answering` are services that need the default model, `standing` those that serve as long as they run."""
        self._gateway = gateway
        self._answering = ("", *answering)
        self._standing = tuple(standing)
        self._ended = asyncio.Event()

    def end(self) -> None:
        """From now on nothing is SERVING, and every Watch says so and ends."""
        self._ended.set()

    async def Check(self, request: pb.HealthCheckRequest, context: Any) -> pb.HealthCheckResponse:  # noqa: N802
        status = self._status(request.service)
        if status == _UNKNOWN:
            name = request.service
            raise NotFound("service", name, f"service: no service or model `{clip(name, 200)}`")
        return pb.HealthCheckResponse(status=status)

    async def List(self, request: Any, context: Any) -> Any:  # noqa: N802
        # The published type stubs do not know List's messages yet.
        return pb.HealthListResponse(  # type: ignore[attr-defined]
            statuses={name: pb.HealthCheckResponse(status=self._status(name)) for name in self._names()}
        )

    async def Watch(  # noqa: N802
        self, request: pb.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.HealthCheckResponse]:
        told: int | None = None
        while True:
            ended = self._ended.is_set()
            status = self._status(request.service)
            if status != told:
                told = status
                yield pb.HealthCheckResponse(status=status)
            if ended:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL_S):  # not `wait_for`: in Python 3.11 it can lose a cancellation
                    await self._ended.wait()

    def _names(self) -> set[str]:
        return {*self._answering, *self._standing, *(view.id for view in self._gateway.models())}

    def _status(self, name: str) -> int:
        up = not self._ended.is_set()
        if name in self._standing:
            return _as(up)
        if name in self._answering:
            return _as(up and self._gateway.ready())
        view = self._gateway.find(name)
        return _UNKNOWN if view is None else _as(up and view.status.state is ModelState.WARM)


def _as(serving: bool) -> int:
    return _SERVING if serving else _NOT_SERVING
