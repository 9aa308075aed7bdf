"""Calls over gRPC and REST to a server in another process, by turns without a shadow and beside a troubled one."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Final, TypeAlias

import aiohttp
import grpc.aio

from benchmarks.records.figures import percentile
from benchmarks.records.server import NONE, SHADOWS
from polyroute.v1 import inference_pb2 as pb
from polyroute.v1.inference_pb2_grpc import InferenceServiceStub

_PROMPT: Final = "one two three four five six"
_Ask: TypeAlias = Callable[[str], Awaitable[str]]


async def over_sockets(pairs: int, folder: Path) -> str:
    """A table in Markdown: latency of calls without and with each shadow, and the median of the differences.

    Each of the `pairs` is one call without and one with the shadow, in either order by turns. Raises `SystemExit` where
    callers fare otherwise than without a shadow.
    """
    lines = ["| shadow | over | p50, us | p99, us | median difference, us |", "|---|---|---:|---:|---:|"]
    with _server(folder) as (grpc_address, http_address):
        async with (
            grpc.aio.insecure_channel(grpc_address) as channel,
            aiohttp.ClientSession(f"http://{http_address}") as session,
        ):
            over = {"gRPC": _by_grpc(InferenceServiceStub(channel)), "REST": _by_rest(session)}
            for kind in (NONE, *SHADOWS):
                for protocol, ask in over.items():
                    lines.append(f"| {kind} | {protocol} | {await _paired(ask, f'with-{kind}', pairs)} |")
    return "\n".join(lines)


async def _paired(ask: _Ask, shadowed: str, pairs: int) -> str:
    took: dict[str, list[float]] = {"plain": [], shadowed: []}
    for number in range(-pairs // 10, pairs):
        for route in sorted(took, reverse=bool(number % 2)):
            begun = time.perf_counter()
            said = await ask(route)
            took_s = time.perf_counter() - begun
            if said != _PROMPT:
                raise SystemExit(f"`{route}` answered {said!r}")
            if number >= 0:  # the first ones warm up
                took[route].append(took_s)
    more = median(b - a for a, b in zip(took["plain"], took[shadowed], strict=True))
    p50, p99 = (" / ".join(f"{percentile(each, p) * 1e6:.0f}" for each in took.values()) for p in (50, 99))
    return f"{p50} | {p99} | {more * 1e6:+.0f}"


def _by_grpc(inference: InferenceServiceStub) -> _Ask:
    async def ask(route: str) -> str:
        return str((await inference.Generate(pb.GenerateRequest(model=route, prompt=_PROMPT))).text)

    return ask


def _by_rest(session: aiohttp.ClientSession) -> _Ask:
    async def ask(route: str) -> str:
        async with session.post("/v1/generate", json={"model": route, "prompt": _PROMPT}) as answer:
            return str((await answer.json())["output"])

    return ask


@contextmanager
def _server(folder: Path) -> Iterator[tuple[str, str]]:
    command = [sys.executable, "-m", "benchmarks.records.server", str(folder)]
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            grpc_address, http_address = process.stdout.readline().split()
            yield grpc_address, http_address
        finally:
            process.terminate()
