"""A whole server on real sockets, over echo backends that the test holds, and gRPC clients of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, ResourceInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1.health_pb2_grpc import HealthStub

from polyroute.backends.echo import EchoBackend
from polyroute.core.config import CacheConfig, Config, LimitsConfig, RemoteConfig, RouteConfig
from polyroute.server.app import Server
from polyroute.server.settings import Address, Settings
from polyroute.v1 import inference_pb2 as pb
from polyroute.v1.admin_pb2_grpc import AdminServiceStub
from polyroute.v1.inference_pb2_grpc import InferenceServiceStub
from polyroute.v1.models_pb2_grpc import ModelServiceStub

WAIT_S = 60.0
ANYWHERE = Address("127.0.0.1", 0, "--test-address")
DETAILS = (ErrorInfo, BadRequest, ResourceInfo, RetryInfo)


def settings_for(
    *backends: EchoBackend,
    folder: Path,
    routes: tuple[RouteConfig, ...] = (),
    limits: LimitsConfig | None = None,
    cache: CacheConfig | None = None,
    grpc_address: Address = ANYWHERE,
) -> Settings:
    """Settings with one model an echo backend, of which the first is the default, on free ports."""
    models = tuple(RemoteConfig(id=b.model, type="remote", base_urls=("http://127.0.0.1:9",)) for b in backends)
    config = Config(
        models=models,
        routes=routes,
        default_model=backends[0].model,
        limits=limits or LimitsConfig(),
        cache=cache or CacheConfig(mode="off"),
    )
    return Settings(config, grpc_address, ANYWHERE, ANYWHERE, cache_dir=folder, cache_bytes=2**24)


@dataclass(slots=True)
class Serving:
    """A running server and clients of both of its gRPC addresses."""

    server: Server
    channel: grpc.aio.Channel
    admin_channel: grpc.aio.Channel

    @property
    def inference(self) -> InferenceServiceStub:
        return InferenceServiceStub(self.channel)

    @property
    def models(self) -> ModelServiceStub:
        return ModelServiceStub(self.channel)

    @property
    def admin(self) -> AdminServiceStub:
        return AdminServiceStub(self.admin_channel)

    @property
    def health(self) -> HealthStub:
        return HealthStub(self.channel)

    async def text(self, prompt: str = "still here", **fields: Any) -> str:
        """The text of a unary answer."""
        return (await self.inference.Generate(pb.GenerateRequest(prompt=prompt, **fields), timeout=WAIT_S)).text


@asynccontextmanager
async def serving(
    *backends: EchoBackend,
    folder: Path,
    settings: Settings | None = None,
    environ: Mapping[str, str] | None = None,
    **options: Any,
) -> AsyncIterator[Serving]:
    """The server of `settings`, or of `settings_for` with `options`, and channels to it."""
    chosen = settings or settings_for(*backends, folder=folder, **options)
    async with (
        Server(chosen, environ=environ or {}, backends={b.model: b for b in backends}) as server,
        grpc.aio.insecure_channel(str(server.grpc_address)) as channel,
        grpc.aio.insecure_channel(str(server.admin_address)) as admin,
    ):
        yield Serving(server, channel, admin)


@dataclass(frozen=True, slots=True)
class Refused:
    """How an RPC failed: its status, its details by type, and its trailing metadata."""

    code: grpc.StatusCode
    message: str
    details: dict[type[Message], Any]
    trailers: dict[str, str | bytes]

    @property
    def reason(self) -> str:
        reason: str = self.details[ErrorInfo].reason
        return reason

    @property
    def field(self) -> str:
        """Path of the field that a bad request was refused for."""
        field: str = self.details[BadRequest].field_violations[0].field
        return field


async def refused(answer: Awaitable[object]) -> Refused:
    """How a call fails that must fail."""
    try:
        given = await answer
    except grpc.aio.AioRpcError as error:
        return refusal_of(error)
    raise AssertionError(f"the call was answered: {given}")


async def refused_stream(stream: AsyncIterator[object]) -> Refused:
    """How a stream fails that must fail."""
    try:
        async for _ in stream:
            pass
    except grpc.aio.AioRpcError as error:
        return refusal_of(error)
    raise AssertionError("the stream ended well")


def refusal_of(error: grpc.aio.AioRpcError) -> Refused:
    """Takes an error apart, and checks what every one of ours has."""
    trailers = dict(error.trailing_metadata() or ())
    assert "grpc-status-details-bin" in trailers, error
    status = Status.FromString(trailers["grpc-status-details-bin"])
    assert status.code == error.code().value[0]
    assert status.message == error.details()
    details: dict[type[Message], Any] = {}
    for packed in status.details:
        kind = next(kind for kind in DETAILS if packed.Is(kind.DESCRIPTOR))
        details[kind] = kind()
        packed.Unpack(details[kind])
    assert details[ErrorInfo].domain == "polyroute"
    assert trailers["x-request-id"] == details[ErrorInfo].metadata["request_id"]
    return Refused(error.code(), error.details() or "", details, trailers)


async def until(condition: Callable[[], bool]) -> None:
    """Waits for something that must happen."""
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event to give
            await asyncio.sleep(0.005)
