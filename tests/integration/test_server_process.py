"""`polyroute serve` and `polyroute check` as real processes: the ready line, signals, exits and what goes wrong."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from polyroute.backends.echo import EchoBackend, Script
from polyroute.v1 import inference_pb2 as pb
from polyroute.v1.inference_pb2_grpc import InferenceServiceStub
from tests.integration.grpc_serving import WAIT_S, Serving, serving, until

FREE = ("--grpc-address", "127.0.0.1:0", "--http-address", "127.0.0.1:0", "--admin-address", "127.0.0.1:0")


@asynccontextmanager
async def running(folder: Path, *arguments: str, **environ: str) -> AsyncIterator[Process]:
    """`python -m polyroute.server ARGUMENTS`, killed at the end where it still runs."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("POLYROUTE_", "MODEL_"))}
    env = {**inherited, "POLYROUTE_CACHE_DIR": str(folder / "cache"), **environ}
    command = (sys.executable, "-m", "polyroute.server", *arguments)
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE, cwd=folder, env=env)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def ended(process: Process) -> tuple[int, str, str]:
    """Exit code, output and errors of a process that is about to end."""
    out, err = await asyncio.wait_for(process.communicate(), WAIT_S)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def ready(process: Process) -> str:
    """The ready line, once it comes."""
    assert process.stdout is not None
    return (await asyncio.wait_for(process.stdout.readline(), WAIT_S)).decode()


def config_for(at: Serving, folder: Path) -> Path:
    path = folder / "models.yaml"
    path.write_text(f"models:\n  - id: m\n    type: remote\n    base_url: http://{at.server.http_address}\n")
    return path


async def test_a_server_says_that_it_is_ready_answers_and_drains(tmp_path: Path) -> None:
    gate = asyncio.Event()
    echo = EchoBackend("m", script=Script(texts=["a", "b"], gate=gate, gate_after=1))
    async with serving(echo, folder=tmp_path / "peer") as peer:
        async with running(tmp_path, "--config", str(config_for(peer, tmp_path)), *FREE) as process:
            line = await ready(process)
            found = re.fullmatch(
                r"polyroute ready: gRPC (\S+), REST and console http://(\S+), model m \(\d+\.\d s\)\n", line
            )
            assert found, line
            async with grpc.aio.insecure_channel(found[1]) as channel:
                watch = HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=WAIT_S)
                assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
                generate = InferenceServiceStub(channel).Generate
                asking = asyncio.ensure_future(generate(pb.GenerateRequest(prompt="x"), timeout=WAIT_S))
                await until(lambda: echo.open == 1)
                process.send_signal(signal.SIGTERM)
                assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
                assert await watch.read() is grpc.aio.EOF
                gate.set()
                assert (await asking).text == "ab"
                code, out, err = await ended(process)
        assert code == 0, err
        for command in ("grpcurl -plaintext", "curl -s http://", "polyroute generate"):
            assert command in out
        assert "stopping" in err


async def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    echo = EchoBackend("m", script=Script(texts=["a", "b"], gate=asyncio.Event(), gate_after=1))
    async with serving(echo, folder=tmp_path / "peer") as peer:
        config = str(config_for(peer, tmp_path))
        async with running(tmp_path, "--config", config, "--drain-timeout", "3600", *FREE) as process:
            address = (await ready(process)).split()[3].rstrip(",")
            async with grpc.aio.insecure_channel(address) as channel:
                stream = InferenceServiceStub(channel).StreamGenerate(pb.GenerateRequest(prompt="x"))
                await stream.read()
                process.send_signal(signal.SIGTERM)
                assert process.stderr is not None
                async with asyncio.timeout(WAIT_S):
                    while b"stopping" not in await process.stderr.readline():
                        pass
                process.send_signal(signal.SIGTERM)
                code, _, err = await ended(process)
                assert code == 0, err
        await until(lambda: echo.open == 0)


async def test_a_port_that_is_taken_is_one_clear_error(tmp_path: Path) -> None:
    async with serving(EchoBackend("m"), folder=tmp_path / "peer") as peer:
        config, taken = str(config_for(peer, tmp_path)), str(peer.server.grpc_address)
        async with running(tmp_path, "--config", config, *FREE, "--grpc-address", taken) as process:
            code, out, err = await ended(process)
        assert code == 1
        assert f"polyroute: cannot listen on {taken}" in err
        assert "--grpc-address" in err
        assert "Traceback" not in out + err


async def test_bad_settings_are_named(tmp_path: Path) -> None:
    bad = {
        "POLYROUTE_HTTP_ADDRESS": "nonsense",
        "POLYROUTE_CACHE_SIZE": "much",
        "MODEL_DEVICE": "abacus",
        "MODEL_ID": "two words",
    }
    for name, value in bad.items():
        async with running(tmp_path, **{name: value}) as process:
            code, _, err = await ended(process)
        assert code == 2
        assert name in err
        assert value in err


async def test_a_wrong_file_is_told_by_line(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    path.write_text("models:\n  - id: m\n    type: remote\n    bse_url: http://x:1\n")
    async with running(tmp_path, "--config", str(path)) as process:
        code, _, err = await ended(process)
    assert code == 2
    assert f"{path}:4: models[0].bse_url: unknown key" in err


async def test_check_prints_every_problem_or_ok(tmp_path: Path) -> None:
    polyroute = Path(sys.executable).parent / "polyroute"

    async def check(*arguments: str) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(polyroute, "check", *arguments, stdout=PIPE, stderr=PIPE)
        code, out, _ = await ended(process)
        return code, out

    path = tmp_path / "models.yaml"
    path.write_text("models:\n  - {id: a, type: local}\n  - {id: b, type: remote, base_url: http://b:1}\n")
    assert await check(str(path)) == (0, "ok: 2 models, 0 routes\n")
    code, out = await check("--json", str(path))
    assert (code, json.loads(out)) == (0, {"ok": True, "models": 2, "routes": 0})

    path.write_text("models:\n  - {id: a, type: lokal}\n  - {id: a b, type: remote, base_url: http://b:1}\n")
    code, out = await check(str(path))
    assert code == 2
    assert [line.split(": ")[0] for line in out.splitlines()] == [f"{path}:2", f"{path}:3"]
    code, out = await check("--json", str(path))
    assert code == 2
    assert [problem["line"] for problem in json.loads(out)["problems"]] == [2, 3]
