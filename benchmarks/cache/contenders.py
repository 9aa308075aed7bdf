"""Whose answers are compared: the router by tier, the floors under it, and a peer gateway; each in its own process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc

from benchmarks.cache import serving as server
from benchmarks.cache import workload
from benchmarks.cache.programs import CannotRun, Target
from benchmarks.cache.serving import Serve
from polyroute.v1 import admin_pb2, admin_pb2_grpc

ROOT: Final = Path(__file__).parents[2]
SERVER_CORE: Final = 0
_START_S: Final = 120.0
_END_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Contender:
    """One row: where its requests go, and the name of the floor that it is held against.

    `admin` is the port where it tells of its cache's hits, 0 where it has none.
    """

    name: str
    protocol: str
    target: Target
    floor: str = ""
    admin: int = 0

    def hits(self) -> int:
        """Answers that its cache has given so far, those of a look that equal calls shared included."""
        if not self.admin:
            return 0
        with grpc.insecure_channel(f"127.0.0.1:{self.admin}") as channel:
            stats = admin_pb2_grpc.AdminServiceStub(channel).GetCacheStats(admin_pb2.GetCacheStatsRequest(), timeout=60)
        return sum(model.hits + model.coalesced for model in stats.models)


def rows(name: str, folder: Path, ports: dict[str, int], *, keys: int = 1, cached: bool = False) -> list[Contender]:
    """A row for each protocol that a server speaks."""
    paths = {"grpc": workload.GENERATE, "http": workload.CHAT}
    return [
        Contender(
            name,
            protocol,
            Target(protocol, ports[protocol], path, folder / f"{protocol}.body", keys),  # type: ignore[arg-type]
            floor=f"{protocol} echo",
            admin=ports["admin"] if cached else 0,
        )
        for protocol, path in paths.items()
        if protocol in ports
    ]


@contextmanager
def serving(serve: Serve) -> Iterator[dict[str, int]]:
    """A process of ours, once it is ready; its ports by name. Raises `CannotRun` where it ends instead."""
    with _process(server.command(serve), {"GRPC_ENABLE_FORK_SUPPORT": "0"}) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise CannotRun(f"the server of {serve.cache or serve.floor} ended before it was ready")
        yield json.loads(line)


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    """A Redis of its own; its URL. Raises `CannotRun` where there is none."""
    program = shutil.which("redis-server")
    if program is None:
        raise CannotRun("there is no redis-server")
    port = free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with _process([program, *options], {}, theirs=True):
        _wait(lambda: socket.create_connection(("127.0.0.1", port), 1).close())
        yield f"redis://127.0.0.1:{port}/0"


@contextmanager
def litellm(python: str, folder: Path, upstream: int, kind: str) -> Iterator[dict[str, int]]:
    """LiteLLM's proxy with a cache of that kind, `local` or `disk`; its ports by name."""
    port = free_port()
    path = folder / f"litellm-{kind}.yaml"
    peer = {"model": f"openai/{workload.MODEL}", "api_base": f"http://127.0.0.1:{upstream}/v1", "api_key": "none"}
    cache: dict[str, Any] = {"type": kind, "supported_call_types": ["acompletion", "completion"]}
    if kind == "disk":
        cache["disk_cache_dir"] = str(folder / "litellm-answers")
    settings = {"cache": True, "cache_params": cache, "telemetry": False}
    models = [{"model_name": workload.MODEL, "litellm_params": peer}]
    path.write_text(json.dumps({"model_list": models, "litellm_settings": settings}))
    program = Path(python).parent / "litellm"
    environ = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
    environ["LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY"] = "true"  # ours asks for no key here, either
    command = [str(program), "--config", str(path), "--host", "127.0.0.1", "--port", str(port)]
    with _process(command, environ, theirs=True):
        _wait(lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/health/liveliness", timeout=5).close())
        yield {"http": port}


def ask(port: int, number: int) -> bytes:
    """What a server over HTTP answers to one of the keys."""
    sent = workload.filled(workload.http_body(), number)
    url = f"http://127.0.0.1:{port}{workload.CHAT}"
    with urllib.request.urlopen(urllib.request.Request(url, sent, {"Content-Type": "application/json"})) as answer:
        body: bytes = answer.read()
        return body


def free_port() -> int:
    """A port that nothing listened on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _process(arguments: list[str], environ: dict[str, str], *, theirs: bool = False) -> Iterator[subprocess.Popen[str]]:
    """A server on its core, ended with all that it started; what others' servers say goes nowhere."""
    process = subprocess.Popen(
        ["taskset", "-c", str(SERVER_CORE), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL if theirs else subprocess.PIPE,
        stderr=subprocess.DEVNULL if theirs else None,
        text=True,
        cwd=ROOT,
        env=os.environ | environ,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        assert process.stdin is not None
        with suppress(BrokenPipeError):
            process.stdin.close()
        if theirs:
            process.terminate()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _wait(ready: Any) -> None:
    until = time.monotonic() + _START_S
    while True:
        try:
            ready()
            return
        except (OSError, urllib.error.URLError):
            if time.monotonic() > until:
                raise CannotRun(f"a server was not ready within {_START_S:g} s") from None
            time.sleep(0.2)
