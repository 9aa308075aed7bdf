"""Reload on a real server process, by each of its triggers, while calls go on; and what its clients see of it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import grpc.aio
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from polyroute.backends.echo import EchoBackend, Script
from polyroute.v1 import admin_pb2, models_pb2
from polyroute.v1 import inference_pb2 as pb
from polyroute.v1.admin_pb2_grpc import AdminServiceStub
from polyroute.v1.inference_pb2_grpc import InferenceServiceStub
from polyroute.v1.models_pb2_grpc import ModelServiceStub
from tests.integration.grpc_serving import WAIT_S, refused, serving
from tests.integration.test_server_process import FREE, running

POLYROUTE = Path(sys.executable).parent / "polyroute"


class Run:
    """A running `polyroute serve`, its log by event, and clients of it."""

    def __init__(self, process: Process, config: Path, peer: str) -> None:
        self.process, self.config, self.peer = process, config, peer
        self.http = self.admin_address = ""
        self._log: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    def text(self, *models: str, more: str = "") -> str:
        """A file with these models at the peer; `name: value` pairs after a model's ID are its options."""
        lines = ["models:"]
        for model in models:
            id, *options = model.split(" ")
            lines += [f"  - id: {id}", "    type: remote", f"    base_url: {self.peer}", "    peer_model: m"]
            lines += [f"    {option.replace('=', ': ')}" for option in options]
        return "\n".join([*lines, "default_model: m", "cache: {mode: off}", more, ""])

    def rename_into_place(self, text: str) -> None:
        """Writes as editors do."""
        new = self.config.with_name("new.yaml")
        new.write_text(text)
        new.replace(self.config)

    async def read_log(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            if line.startswith(b"{"):
                self._log.put_nowait(json.loads(line))

    async def logged(self, event: str) -> dict[str, Any]:
        """The next line of the log with that event."""
        async with asyncio.timeout(WAIT_S):
            while (entry := await self._log.get())["event"] != event:
                pass
        return entry

    def begin(self, channel: grpc.aio.Channel, admin: grpc.aio.Channel) -> None:
        self.inference, self.models = InferenceServiceStub(channel), ModelServiceStub(channel)
        self.admin, self.health = AdminServiceStub(admin), HealthStub(channel)


@asynccontextmanager
async def reloading(
    folder: Path, *arguments: str, config: Path | None = None
) -> AsyncIterator[tuple[Run, EchoBackend]]:
    """A server process over one peer, whose model `m` echoes."""
    echo = EchoBackend("m")
    async with serving(echo, folder=folder / "peer") as at:
        path = config or folder / "models.yaml"
        run = Run(None, path, f"http://{at.server.http_address}")  # type: ignore[arg-type]
        path.write_text(run.text("m"))
        async with running(folder, "--config", str(path), *FREE, *arguments) as process:
            run.process = process
            reading = asyncio.create_task(run.read_log())
            try:
                assert process.stdout is not None
                words = (await asyncio.wait_for(process.stdout.readline(), WAIT_S)).decode().split()
                run.http = words[7].removeprefix("http://").rstrip(",")
                run.admin_address = (await run.logged("server.listening"))["admin"]
                async with (
                    grpc.aio.insecure_channel(words[3].rstrip(",")) as channel,
                    grpc.aio.insecure_channel(run.admin_address) as admin,
                ):
                    run.begin(channel, admin)
                    yield run, echo
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)


async def test_sighup_while_a_stream_and_calls_go_on(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with reloading(tmp_path, "--no-watch") as (run, echo):
        watch = run.health.Watch(health_pb2.HealthCheckRequest(service="old"), timeout=WAIT_S)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        run.config.write_text(run.text("m", "old"))
        run.process.send_signal(signal.SIGHUP)
        assert (await run.logged("config.reloaded"))["added"] == ["old"]
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING

        echo.script = Script(texts=["a", "b"], gate=gate, gate_after=1)
        stream = run.inference.StreamGenerate(pb.GenerateRequest(model="old", prompt="x"), timeout=WAIT_S)
        begun = [await stream.read(), await stream.read()]
        assert [event.WhichOneof("event") for event in begun] == ["start", "delta"]
        echo.script = Script()

        run.config.write_text(run.text("m", "new"))
        run.process.send_signal(signal.SIGHUP)
        reloaded = await run.logged("config.reloaded")
        assert (reloaded["trigger"], reloaded["added"], reloaded["removed"]) == ("SIGHUP", ["new"], ["old"])
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        gone = await refused(run.inference.Generate(pb.GenerateRequest(model="old", prompt="x"), timeout=WAIT_S))
        assert gone.code is grpc.StatusCode.NOT_FOUND
        assert (await run.inference.Generate(pb.GenerateRequest(model="new", prompt="x y"), timeout=WAIT_S)).text
        async with aiohttp.ClientSession(f"http://{run.http}") as client:
            async with client.post("/v1/generate", json={"model": "new", "prompt": "x y"}) as answer:
                assert (answer.status, (await answer.json())["output"]) == (200, "x y")
            async with client.get("/metrics") as answer:
                metrics = await answer.text()
        assert 'polyroute_config_reloads_total{result="changed"} 2.0' in metrics
        assert 'polyroute_permits_in_use{deployment="old"}' not in metrics

        gate.set()  # the stream that began before both is still on its way
        rest = []
        while (event := await stream.read()) is not grpc.aio.EOF:
            rest.append(event.WhichOneof("event"))
        assert rest == ["delta", "end"]
        assert (await run.logged("deployment.left"))["model"] == "old"


async def test_the_admin_call_and_the_command(tmp_path: Path) -> None:
    async with reloading(tmp_path, "--no-watch") as (run, _):

        async def command(*arguments: str) -> tuple[int | None, str]:
            environ = {**os.environ, "POLYROUTE_ADMIN_ADDRESS": run.admin_address}
            called = (str(POLYROUTE), "reload", *arguments)
            process = await asyncio.create_subprocess_exec(*called, stdout=PIPE, stderr=PIPE, env=environ)
            out, _ = await asyncio.wait_for(process.communicate(), WAIT_S)
            return process.returncode, out.decode()

        run.config.write_text(run.text("m max_queue=7", "new"))
        assert await command("--dry-run") == (0, "added: new\nadjusted: m\n")
        listed = await run.models.ListModels(models_pb2.ListModelsRequest(page_size=1), timeout=WAIT_S)
        assert [model.id for model in listed.models] == ["m"]
        first = await run.admin.Reload(admin_pb2.ReloadRequest(), timeout=WAIT_S)
        assert (first.changed, [*first.added], [*first.adjusted]) == (True, ["new"], ["m"])

        # a token of before goes on after the last ID that was seen, whatever has changed
        listed = await run.models.ListModels(models_pb2.ListModelsRequest(page_size=1), timeout=WAIT_S)
        run.config.write_text(run.text("m", "a", "new", "z") + "colour: red\n")
        code, out = await command()
        assert (code, out) == (2, f"{run.config}:21: colour: unknown key\n")
        run.config.write_text(run.text("m", "a", "new", "z"))
        code, out = await command("--json")
        done = json.loads(out)
        assert (code, done["added"], done["problems"]) == (0, ["a", "z"], [])
        assert done["config_hash"] != first.config_hash
        request = models_pb2.ListModelsRequest(page_size=5, page_token=listed.next_page_token)
        assert [m.id for m in (await run.models.ListModels(request, timeout=WAIT_S)).models] == ["new", "z"]


async def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    """By a link that is turned, as Kubernetes does, and by a rename; a broken file changes nothing."""
    for name in ("v1", "v2"):
        (tmp_path / name).mkdir()
    (tmp_path / "..data").symlink_to("v1")
    path = tmp_path / "models.yaml"
    (tmp_path / "v1" / "models.yaml").touch()
    path.symlink_to("..data/models.yaml")
    async with reloading(tmp_path, config=path) as (run, _):
        (tmp_path / "v2" / "models.yaml").write_text(run.text("m", "turned"))
        (tmp_path / "..new").symlink_to("v2")
        (tmp_path / "..new").replace(tmp_path / "..data")
        reloaded = await run.logged("config.reloaded")
        assert (reloaded["trigger"], reloaded["added"]) == ("file", ["turned"])

        run.rename_into_place(run.text("m") + "colour: red\n")
        problem = await run.logged("config.problem")
        assert problem["problem"].endswith("models.yaml:9: colour: unknown key")
        assert (await run.inference.Generate(pb.GenerateRequest(model="turned", prompt="x"), timeout=WAIT_S)).text

        run.rename_into_place(run.text("m", "renamed"))
        reloaded = await run.logged("config.reloaded")
        assert (reloaded["added"], reloaded["removed"]) == (["renamed"], ["turned"])


async def test_without_a_file_there_is_nothing_to_reload(tmp_path: Path) -> None:
    async with serving(EchoBackend("m"), folder=tmp_path) as at:
        error = await refused(at.admin.Reload(admin_pb2.ReloadRequest(), timeout=WAIT_S))
        assert error.code is grpc.StatusCode.UNIMPLEMENTED
        assert "nothing to reload" in error.message
