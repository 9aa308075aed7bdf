"""`polyroute serve --workers N` as real processes, and many connections to it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import grpc.aio

from polyroute.v1 import inference_pb2 as pb
from polyroute.v1.admin_pb2_grpc import AdminServiceStub
from polyroute.v1.inference_pb2_grpc import InferenceServiceStub
from tests.integration.grpc_serving import WAIT_S, until

FREE = ("--grpc-address", "127.0.0.1:0", "--http-address", "127.0.0.1:0", "--admin-address", "127.0.0.1:0")
_OWN = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]  # a connection each; failures as they are


@dataclass(slots=True)
class Fronts:
    """A server of several processes, what it has logged, and connections to it."""

    process: Process
    stack: AsyncExitStack
    http: aiohttp.ClientSession
    lines: list[dict[str, Any]] = field(default_factory=list)
    printed: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The lines of that event."""
        return [line for line in self.lines if line["event"] == event]

    @property
    def addresses(self) -> dict[str, str]:
        """Where it listens, by face."""
        return {face: self.logged("server.listening")[0][face] for face in ("grpc", "http", "admin")}

    @property
    def pids(self) -> dict[int, int]:
        """The process ID that each front has had last, by its number."""
        return {line["process"]: line["pid"] for line in self.logged("front.listening")}

    async def channel(self) -> grpc.aio.Channel:
        """One more connection, to whichever process the system chooses."""
        return await self.stack.enter_async_context(grpc.aio.insecure_channel(self.addresses["grpc"], options=_OWN))

    async def by_process(self, model: str = "m") -> dict[int, InferenceServiceStub]:
        """A connection to each process, found by who logs the calls of it."""
        found: dict[int, InferenceServiceStub] = {}
        async with asyncio.timeout(WAIT_S):
            while len(found) < len(self.pids):
                stub = InferenceServiceStub(await self.channel())
                found[await self.process_of(stub, model)] = stub
        return found

    async def process_of(self, stub: InferenceServiceStub, model: str = "m") -> int:
        """Which process answers a connection's calls."""
        answer = await stub.Generate(pb.GenerateRequest(model=model, prompt="who", max_tokens=2), timeout=WAIT_S)
        await until(lambda: any(line["request_id"] == answer.request_id for line in self.logged("call.finished")))
        line = next(line for line in self.logged("call.finished") if line["request_id"] == answer.request_id)
        return int(line["process"])

    async def admin(self) -> AdminServiceStub:
        """The operator's calls."""
        return AdminServiceStub(
            await self.stack.enter_async_context(grpc.aio.insecure_channel(self.addresses["admin"]))
        )

    async def get(self, path: str, **headers: str) -> str:
        """A page of the HTTP address, by a connection of its own."""
        url = f"http://{self.addresses['http']}{path}"
        async with self.http.get(url, headers={**headers, "Connection": "close"}) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.text()

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of that metric's samples with these labels."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        lines = [
            line for line in (await self.get("/metrics")).splitlines() if line.startswith((name + "{", name + " "))
        ]
        return sum(float(line.rpartition(" ")[2]) for line in lines if all(label in line for label in wanted))


@asynccontextmanager
async def fronts(folder: Path, *arguments: str, workers: int = 2, **environ: str) -> AsyncIterator[Fronts]:
    """A server of `workers` router processes, ready; killed at the end where it still runs, its processes with it."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("POLYROUTE_", "MODEL_"))}
    env = {
        **inherited,
        "POLYROUTE_CACHE_DIR": str(folder / "cache"),
        "POLYROUTE_STATE_URL": f"sqlite:///{folder / 'state.db'}",
        "POLYROUTE_WORKERS": str(workers),
        **environ,
    }
    command = (sys.executable, "-m", "polyroute.server", *FREE, *arguments)
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE, cwd=folder, env=env, limit=2**22)
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        server = Fronts(process, stack, session)
        reading = [asyncio.create_task(_read_log(server)), asyncio.create_task(_read_out(server))]
        try:
            await until(lambda: bool(server.printed) or process.returncode is not None)
            assert server.printed, (server.lines, server.other)
            await until(lambda: bool(server.logged("server.listening")))  # the log is behind what is printed
            assert len(server.pids) == workers
            yield server
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)
            await process.wait()
            await asyncio.gather(*reading)


async def _read_log(server: Fronts) -> None:
    assert server.process.stderr is not None
    async for line in server.process.stderr:
        try:
            server.lines.append(json.loads(line))
        except ValueError:
            server.other.append(line.decode())


async def _read_out(server: Fronts) -> None:
    assert server.process.stdout is not None
    async for line in server.process.stdout:
        server.printed.append(line.decode())
