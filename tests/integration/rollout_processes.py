"""Servers as processes that share a state database and the peers of a test, with a rollout on a route `r`."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from polyroute.client.admin import AdminClient
from polyroute.client.enums import RolloutState
from polyroute.client.operations import Rollout
from polyroute.v1 import inference_pb2, models_pb2
from polyroute.v1.inference_pb2_grpc import InferenceServiceStub
from polyroute.v1.models_pb2_grpc import ModelServiceStub
from tests.integration.grpc_serving import WAIT_S

FREE = ("--grpc-address", "127.0.0.1:0", "--http-address", "127.0.0.1:0")
USERS = 120


def config_file(folder: Path, peer: str, **rollout: Any) -> Path:
    """A `models.yaml` with models `one` and `two` at `peer`, and a rollout from the one to the other."""
    keys = {"from": "old", "to": "new", "steps": [{"weight": 0.3, "hold": "1h"}]} | rollout
    content = {
        "cache": {"mode": "off"},
        "models": [{"id": id, "type": "remote", "base_url": peer, "retries": 0} for id in ("one", "two")],
        "routes": [
            {
                "id": "r",
                "variants": [{"name": "old", "model": "one"}, {"name": "new", "model": "two"}],
                "rollout": keys,
            }
        ],
    }
    path = folder / "models.yaml"
    path.write_text(json.dumps(content))  # JSON is YAML
    return path


@dataclass(slots=True)
class Router:
    """A server process, and clients of it."""

    process: Process
    channel: grpc.aio.Channel
    admin: AdminClient
    ended: dict[str, int] = field(default_factory=lambda: {"ok": 0, "failed": 0})

    async def rollout(self) -> Rollout:
        return await self.admin.rollout("r", timeout=WAIT_S)

    async def begun(self) -> Rollout:
        """The rollout, once it is at a step."""
        async with asyncio.timeout(WAIT_S):
            while (found := await self.rollout()).state is RolloutState.PENDING:  # noqa: ASYNC110 - of a process
                await asyncio.sleep(0.05)
            while abs(await self.share() - found.weight) > 1e-9:  # noqa: ASYNC110 - what is kept is in force right after
                await asyncio.sleep(0.05)
        return found

    async def variants(self) -> list[str]:
        """Where each of the users' calls would go."""
        stub, found = ModelServiceStub(self.channel), []
        for user in range(USERS):
            request = inference_pb2.GenerateRequest(model="r", prompt="x", routing={"user": f"{user}"})
            plan = await stub.ExplainRoute(models_pb2.ExplainRouteRequest(request=request), timeout=WAIT_S)
            found.append(plan.attempts[0].variant)
        return found

    async def share(self) -> float:
        """The new version's share of the traffic at this router."""
        request = models_pb2.GetModelRequest(model="r")
        model = (await ModelServiceStub(self.channel).GetModel(request, timeout=WAIT_S)).model
        return next(float(variant.share) for variant in model.variants if variant.name == "new")

    async def call(self, user: str) -> str:
        """The variant that answered a call of a user; empty where none did."""
        request = inference_pb2.GenerateRequest(model="r", prompt="hello", routing={"user": user})
        try:
            answer = await InferenceServiceStub(self.channel).Generate(request, timeout=WAIT_S)
        except grpc.aio.AioRpcError:
            self.ended["failed"] += 1
            return ""
        self.ended["ok"] += 1
        return answer.route.variant

    async def kill(self) -> None:
        """Kill -9."""
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()


@asynccontextmanager
async def router(folder: Path, config: Path, state_url: str) -> AsyncIterator[Router]:
    """A server process that is ready; killed at the end where it still runs."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("POLYROUTE_", "MODEL_"))}
    env = {**inherited, "POLYROUTE_CACHE_DIR": str(folder / "cache"), "POLYROUTE_STATE_URL": state_url}
    admin_address = _free_address()
    addresses = ("--admin-address", admin_address, *FREE)
    command = (sys.executable, "-m", "polyroute.server", "--config", str(config), "--no-watch", *addresses)
    with (folder / "log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, stdout=PIPE, stderr=log, env=env)
    try:
        assert process.stdout is not None
        line = (await asyncio.wait_for(process.stdout.readline(), WAIT_S)).decode()
        serves = re.search(r"gRPC (127\.0\.0\.1:\d+)", line)
        assert serves is not None, line or (folder / "log").read_text()
        async with grpc.aio.insecure_channel(serves[1]) as channel, AdminClient(admin_address) as admin:
            yield Router(process, channel, admin)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def _free_address() -> str:
    """The ready line does not tell the admin address, so it is chosen here."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"
