"""Servers that do nothing but answer with bytes that they were given: the floors under every other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
from aiohttp import web

from benchmarks.cache.workload import CHAT
from polyroute.v1 import inference_pb2 as pb
from polyroute.v1 import inference_pb2_grpc


@asynccontextmanager
async def grpc_echo(answer: bytes) -> AsyncIterator[int]:
    """grpc.aio with a handler that takes and gives bytes; its port."""

    async def generate(request: bytes, context: Any) -> bytes:
        return answer

    method = grpc.unary_unary_rpc_method_handler(generate)
    handlers = grpc.method_handlers_generic_handler("polyroute.v1.InferenceService", {"Generate": method})
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((handlers,))
    async with _serving(server) as port:
        yield port


@asynccontextmanager
async def grpc_messages(answer: bytes) -> AsyncIterator[int]:
    """grpc.aio that parses each request and serialises each answer as the router must; its port."""
    whole = pb.GenerateResponse.FromString(answer)

    class Service(inference_pb2_grpc.InferenceServiceServicer):
        async def Generate(self, request: pb.GenerateRequest, context: Any) -> pb.GenerateResponse:  # noqa: N802
            return whole

    server = grpc.aio.server()
    inference_pb2_grpc.add_InferenceServiceServicer_to_server(Service(), server)
    async with _serving(server) as port:
        yield port


@asynccontextmanager
async def http_echo(answer: bytes) -> AsyncIterator[int]:
    """aiohttp with a handler that reads the body and gives bytes; its port."""

    async def chat(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=answer, content_type="application/json")

    app = web.Application()
    app.router.add_post(CHAT, chat)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    try:
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


@asynccontextmanager
async def _serving(server: grpc.aio.Server) -> AsyncIterator[int]:
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)
