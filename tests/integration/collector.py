"""A real OTLP collector (Rotel), and behind it a receiver that shows what arrives there."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import select
import socket
from asyncio.subprocess import DEVNULL, create_subprocess_exec
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import grpc.aio
import pytest
from aiohttp import web
from aiohttp.test_utils import RawTestServer
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from tests.integration.grpc_serving import WAIT_S, until


@dataclass(frozen=True, slots=True)
class Arrived:
    """A span as it has arrived."""

    service: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    failed: bool
    words: str
    begun_ns: int
    ended_ns: int
    attributes: dict[str, Any]

    @property
    def error(self) -> str:
        """`error.type`, empty where there is none."""
        return str(self.attributes.get("error.type", ""))


@dataclass(slots=True)
class Spans(TraceServiceServicer):
    """Takes spans from a collector."""

    arrived: list[Arrived] = field(default_factory=list)
    address: str = ""

    async def Export(self, request: pb.ExportTraceServiceRequest, context: object) -> pb.ExportTraceServiceResponse:
        for resource in request.resource_spans:
            named = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.arrived.extend(_arrived(named["service.name"], span) for span in scope.spans)
        return pb.ExportTraceServiceResponse()

    def of(self, trace_id: str) -> list[Arrived]:
        """The spans of one trace, the earliest first."""
        return sorted((span for span in self.arrived if span.trace_id == trace_id), key=lambda span: span.begun_ns)


def _arrived(service: str, span: WireSpan) -> Arrived:
    return Arrived(
        service,
        span.name,
        WireSpan.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.status.code == Status.STATUS_CODE_ERROR,
        span.status.message,
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        {pair.key: _value(pair.value) for pair in span.attributes},
    )


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return None if kind is None else getattr(value, kind)


@asynccontextmanager
async def receiver() -> AsyncIterator[Spans]:
    """Takes spans over gRPC, without a collector between."""
    spans = Spans()
    server = grpc.aio.server()
    add_TraceServiceServicer_to_server(spans, server)
    spans.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield spans
    finally:
        await server.stop(None)


@asynccontextmanager
async def collector(spans: Spans) -> AsyncIterator[str]:
    """The OTLP endpoint of a collector that passes on what it gets to `spans`; skips the test where there is none."""
    port = _free_port()
    process = await create_subprocess_exec(
        rotel(),
        "start",
        f"--otlp-grpc-endpoint=127.0.0.1:{port}",
        f"--otlp-http-endpoint=127.0.0.1:{_free_port()}",
        "--exporter=otlp",
        f"--otlp-exporter-endpoint=http://{spans.address}",
        "--batch-timeout=50ms",
        stdout=DEVNULL,
        stderr=DEVNULL,
    )
    try:
        await until(lambda: process.returncode is not None or _listens(port))
        assert process.returncode is None
        yield f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.wait(), WAIT_S)


def rotel() -> str:
    """Path of the collector's program."""
    found = importlib.util.find_spec("rotel")
    if found is None or found.origin is None:
        if os.environ.get("CI") == "true":
            pytest.fail("rotel is not installed: pip install rotel")
        pytest.skip("rotel, an OTLP collector, is not installed")
    return str(Path(found.origin).parent / "rotel-agent")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class _Slow(TraceServiceServicer):
    """Takes spans, batch by batch, and takes its time."""

    asked = 0

    async def Export(self, request: pb.ExportTraceServiceRequest, context: object) -> pb.ExportTraceServiceResponse:
        self.asked += 1
        await asyncio.sleep(1)
        return pb.ExportTraceServiceResponse()


class _Refusing(TraceServiceServicer):
    """Takes no spans."""

    asked = 0

    async def Export(self, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> NoReturn:
        self.asked += 1
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, "not from you")


@asynccontextmanager
async def unwell(how: str) -> AsyncIterator[tuple[dict[str, str], Callable[[], bool]]]:
    """Variables by which spans go to a collector that is `down`, `silent`, `slow`, `refusing` or that over HTTP.

    With it comes whether anything has come to it, which is True of one that is down.
    """
    if how == "down":
        yield {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}, lambda: True
    elif how == "silent":
        with socket.create_server(("127.0.0.1", 0)) as listening:  # connections are made, and nobody is there
            endpoint = f"http://127.0.0.1:{listening.getsockname()[1]}"
            yield {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}, lambda: bool(select.select([listening], [], [], 0)[0])
    elif how == "refusing over HTTP":
        came = asyncio.Event()

        async def refuse(_request: web.BaseRequest) -> web.Response:
            came.set()
            return web.Response(status=403)

        async with RawTestServer(refuse) as server:
            endpoint = f"http://127.0.0.1:{server.port}"
            yield (
                {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
                came.is_set,
            )
    else:
        takes = _Slow() if how == "slow" else _Refusing()
        collecting = grpc.aio.server()
        add_TraceServiceServicer_to_server(takes, collecting)
        port = collecting.add_insecure_port("127.0.0.1:0")
        await collecting.start()
        try:
            yield {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"}, lambda: takes.asked > 0
        finally:
            await collecting.stop(None)
