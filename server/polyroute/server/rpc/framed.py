"""A gRPC server of which every method has the boundary as its outermost frame."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import grpc
import grpc.aio

from polyroute.server.rpc.boundary import Boundary, Handler


class Framed(grpc.aio.Server):
    """`server`, whose handlers are framed as they are added. An interceptor, which does that too, would run each time.

    Methods that nobody has added are refused by the boundary as well.
    """

    def __init__(self, server: grpc.aio.Server, boundary: Boundary) -> None:
        self._server = server
        self._boundary = boundary

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[Any]) -> None:
        """Adds handlers that know by a method's name whether it is theirs."""
        framed = tuple(_Framing(handlers, self._boundary) for handlers in generic_rpc_handlers)
        self._server.add_generic_rpc_handlers(framed)

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, Handler]) -> None:
        """Adds the handlers of one service, by method; they go before generic ones."""
        around = self._boundary.around
        framed = {name: around(found, f"/{service_name}/{name}") for name, found in method_handlers.items()}
        self._server.add_registered_method_handlers(service_name, framed)

    def add_insecure_port(self, address: str) -> int:
        """Binds an address; returns its port. Raises `RuntimeError` where it is taken."""
        return self._server.add_insecure_port(address)

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> int:
        """The same for TLS."""
        return self._server.add_secure_port(address, server_credentials)

    async def start(self) -> None:
        """Serves from now on; nothing can be added any more."""
        self._server.add_generic_rpc_handlers((_Unknown(self._boundary),))
        await self._server.start()

    async def stop(self, grace: float | None) -> None:
        """Ends it; calls in flight have `grace` seconds."""
        await self._server.stop(grace)

    async def wait_for_termination(self, timeout: float | None = None) -> bool:
        """Waits until it has ended, `timeout` seconds at most; returns whether it has not."""
        return await self._server.wait_for_termination(timeout)


class _Framing(grpc.GenericRpcHandler):
    """What others find, framed; once a method, of which there are as many as they have."""

    def __init__(self, inner: Any, boundary: Boundary) -> None:
        self._inner = inner
        self._boundary = boundary
        self._framed: dict[str, Handler] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler | None:
        """The handler of a method, where these have it."""
        method = handler_call_details.method
        framed = self._framed.get(method)
        if framed is None and (found := self._inner.service(handler_call_details)) is not None:
            framed = self._framed[method] = self._boundary.around(found, method)
        return framed


class _Unknown(grpc.GenericRpcHandler):
    """Comes last, and refuses everything: handlers are not kept, for callers may make up as many names as they like."""

    def __init__(self, boundary: Boundary) -> None:
        self._boundary = boundary

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler | None:
        """A handler that refuses."""
        return self._boundary.unknown(handler_call_details.method)
