"""Servers that do as little as their frameworks let them, the floors under every other:
`python -m benchmarks.rig.floors NAME UPSTREAM_PORT ANSWER_FILE [PORT]`; without a file ('') echoes give a usual answer.

Prints one line of JSON once it is ready: the port, by protocol; several may be given the same one, and share it. Ends
with its standard input.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
import grpc
import grpc.aio
import uvloop
from aiohttp import web

from benchmarks.rig.stdin import end_of_input
from benchmarks.rig.workload import CHAT, grpc_answer, grpc_event, http_answer
from polyroute.v1 import inference_pb2 as pb
from polyroute.v1 import inference_pb2_grpc

WORDS: Final = 16
"""Of the echoes' whole answers."""
STREAM_WORDS: Final = 64
_SERVICE: Final = "polyroute.v1.InferenceService"
_JSON: Final = {"Content-Type": "application/json"}
_BURSTS: Final = [("grpc.server.max_pending_requests", 16_384), ("grpc.server.max_pending_requests_hard_limit", 16_384)]
"""As the router has it: thousands of calls that come at once are taken up, and none is refused."""
_Serving = AbstractAsyncContextManager[dict[str, int]]


@asynccontextmanager
async def grpc_echo(upstream: int, answer: bytes, port: int) -> AsyncIterator[dict[str, int]]:
    """grpc.aio with handlers that take and give bytes: an answer, or a stream of 64."""
    whole, event = answer or grpc_answer(WORDS), grpc_event()

    async def generate(request: bytes, context: Any) -> bytes:
        return whole

    async def stream(request: bytes, context: Any) -> AsyncIterator[bytes]:
        for _ in range(STREAM_WORDS):
            yield event

    async with _serving_bytes(generate, stream, port) as ports:
        yield ports


@asynccontextmanager
async def grpc_messages(upstream: int, answer: bytes, port: int) -> AsyncIterator[dict[str, int]]:
    """grpc.aio that parses each request and serialises each answer as the router must."""
    whole = pb.GenerateResponse.FromString(answer or grpc_answer(WORDS))

    class Service(inference_pb2_grpc.InferenceServiceServicer):
        async def Generate(self, request: pb.GenerateRequest, context: Any) -> pb.GenerateResponse:  # noqa: N802
            return whole

    server = grpc.aio.server(options=_BURSTS)
    inference_pb2_grpc.add_InferenceServiceServicer_to_server(Service(), server)
    async with _serving(server, port) as ports:
        yield ports


@asynccontextmanager
async def grpc_pass(upstream: int, answer: bytes, port: int) -> AsyncIterator[dict[str, int]]:
    """grpc.aio over aiohttp: the request's bytes go to the peer, and its bytes come back, a message an event."""
    async with _peer(upstream) as post, _serving_bytes(_passed(post), _passed_events(post), port) as ports:
        yield ports


@asynccontextmanager
async def grpc_relay(upstream: int, answer: bytes, port: int) -> AsyncIterator[dict[str, int]]:
    """The same, a message for all that one read of a stream brings."""
    async with _peer(upstream) as post, _serving_bytes(_passed(post), _passed_reads(post), port) as ports:
        yield ports


@asynccontextmanager
async def http_echo(upstream: int, answer: bytes, port: int) -> AsyncIterator[dict[str, int]]:
    """aiohttp with a handler that reads the body and gives bytes."""
    body = answer or http_answer(WORDS)

    async def chat(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=body, content_type="application/json")

    async with _serving_http(chat, port) as ports:
        yield ports


@asynccontextmanager
async def http_proxy(upstream: int, answer: bytes, port: int) -> AsyncIterator[dict[str, int]]:
    """aiohttp over aiohttp: bytes go to the peer and come back, of a stream as reads bring them."""
    async with _peer(upstream) as post:

        async def chat(request: web.Request) -> web.StreamResponse:
            async with post(await request.read()) as answer:
                if answer.content_type == "application/json":
                    return web.Response(body=await answer.read(), content_type=answer.content_type)
                response = web.StreamResponse(headers={"Content-Type": answer.content_type})
                await response.prepare(request)
                async for part in answer.content.iter_any():
                    await response.write(part)
                await response.write_eof()
                return response

        async with _serving_http(chat, port) as ports:
            yield ports


FLOORS: Final[Mapping[str, Callable[[int, bytes, int], _Serving]]] = {
    "grpc echo": grpc_echo,
    "grpc echo of messages": grpc_messages,
    "grpc pass-through": grpc_pass,
    "grpc relay of reads": grpc_relay,
    "http echo": http_echo,
    "http proxy": http_proxy,
}
"""By name; each is called with the peer's port, the answer of an echo (empty: a usual one) and its port (0: any)."""


async def main(name: str, upstream: int, answer: bytes, port: int) -> None:
    """Serves until standard input ends."""
    async with FLOORS[name](upstream, answer, port) as ports:
        print(json.dumps(ports), flush=True)
        await end_of_input()


def _passed(post: Any) -> Any:
    async def generate(request: bytes, context: Any) -> bytes:
        async with post(request) as answer:
            whole: bytes = await answer.read()
            return whole

    return generate


def _passed_events(post: Any) -> Any:
    async def stream(request: bytes, context: Any) -> AsyncIterator[bytes]:
        async with post(_streaming(request)) as answer:
            async for line in answer.content:
                if line != b"\n":
                    yield line

    return stream


def _passed_reads(post: Any) -> Any:
    async def stream(request: bytes, context: Any) -> AsyncIterator[bytes]:
        async with post(_streaming(request)) as answer:
            async for part in answer.content.iter_any():
                yield part

    return stream


def _streaming(request: bytes) -> bytes:
    return request + b'"stream":true'  # the peer only looks whether the body says so somewhere


@asynccontextmanager
async def _peer(upstream: int) -> AsyncIterator[Any]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        url = f"http://127.0.0.1:{upstream}{CHAT}"
        yield lambda body: session.post(url, data=body, headers=_JSON)


@asynccontextmanager
async def _serving_bytes(generate: Any, stream: Any, port: int) -> AsyncIterator[dict[str, int]]:
    methods = {
        "Generate": grpc.unary_unary_rpc_method_handler(generate),
        "StreamGenerate": grpc.unary_stream_rpc_method_handler(stream),
    }
    server = grpc.aio.server(options=_BURSTS)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, methods),))
    async with _serving(server, port) as ports:
        yield ports


@asynccontextmanager
async def _serving(server: grpc.aio.Server, port: int) -> AsyncIterator[dict[str, int]]:
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield {"grpc": port}
    finally:
        await server.stop(None)


@asynccontextmanager
async def _serving_http(chat: Any, port: int) -> AsyncIterator[dict[str, int]]:
    app = web.Application()
    app.router.add_post(CHAT, chat)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=4096, reuse_port=True).start()
    try:
        yield {"http": int(runner.addresses[0][1])}
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    name, upstream, file, *given = sys.argv[1:]
    uvloop.run(main(name, int(upstream), Path(file).read_bytes() if file else b"", int(given[0]) if given else 0))
