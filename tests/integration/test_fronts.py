"""Several router processes on one port: one server to its callers, whatever becomes of one of the processes."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest

from polyroute.backends.echo import EchoBackend, Script
from polyroute.core.errors import PeerFailed
from polyroute.v1 import admin_pb2
from polyroute.v1 import inference_pb2 as pb
from polyroute.v1.inference_pb2_grpc import InferenceServiceStub
from tests.integration.connect_client import Caller
from tests.integration.fronts_serving import FREE, Fronts, fronts
from tests.integration.grpc_serving import WAIT_S, refused, serving, until
from tests.integration.test_server_process import ended, running

RELOAD = "polyroute.v1.AdminService/Reload"


@asynccontextmanager
async def two(folder: Path, echo: EchoBackend, options: str = "", more: str = "") -> AsyncIterator[Fronts]:
    """Two router processes before a peer that `echo` answers for."""
    async with serving(echo, folder=folder / "peer") as peer:
        write(folder, str(peer.server.http_address), options, more)
        async with fronts(folder, "--config", str(folder / "models.yaml")) as server:
            yield server


def write(folder: Path, peer: str, options: str = "", more: str = "") -> None:
    model = f"  - {{id: m, type: remote, base_url: 'http://{peer}', retries: 0{options}}}\n"
    (folder / "models.yaml").write_text(f"cache: {{mode: 'off'}}\nmodels:\n{model}{more}")


async def ask(stub: InferenceServiceStub, prompt: str = "x", **fields: object) -> str:
    answer = await stub.Generate(pb.GenerateRequest(prompt=prompt, **fields), timeout=WAIT_S)  # type: ignore[arg-type]
    return str(answer.text)


async def refusal(stub: InferenceServiceStub) -> grpc.StatusCode:
    """Asks until a call is refused, and returns why it was."""
    while True:
        try:
            await ask(stub, "late")
        except grpc.aio.AioRpcError as error:
            return error.code()


async def failing(stub: InferenceServiceStub) -> str:
    """Why a call fails."""
    return (await refused(stub.Generate(pb.GenerateRequest(prompt="x"), timeout=WAIT_S))).reason


def alive(pid: int) -> bool:
    """Whether there is such a process, and it has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_both_processes_answer_and_metrics_tell_of_all_calls(tmp_path: Path) -> None:
    echo = EchoBackend("m")
    async with two(tmp_path, echo) as server:
        assert server.printed[0].startswith("polyroute ready: gRPC ")
        stubs = await server.by_process()
        assert set(stubs) == {0, 1}
        for stub in stubs.values():
            assert await ask(stub, "hello") == "hello"
        calls = len(echo.calls)
        for _ in range(3):  # whichever process is asked
            assert await server.metric("polyroute_requests_total", model="m", outcome="ok") == calls
            assert await server.metric("polyroute_replica_attempts_total", outcome="ok") == calls
            assert await server.metric("polyroute_queue_seconds_count") == calls
            assert await server.metric("polyroute_router_processes") == 2
            assert await server.metric("polyroute_model_state", model="m", state="warm") == 1
        whole = await server.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
        assert whole.endswith("# EOF\n")


async def test_the_server_says_that_it_listens_once_every_process_does(tmp_path: Path) -> None:
    async with two(tmp_path, EchoBackend("m")) as server:
        told = [line["event"] for line in server.lines if str(line["event"]).endswith(".listening")]
        assert told == ["front.listening", "front.listening", "server.listening"]


async def test_the_limit_holds_over_all_processes(tmp_path: Path) -> None:
    gate, most = asyncio.Event(), 0
    echo = EchoBackend("m", script=Script(texts=["a"]))
    async with two(tmp_path, echo, ", max_concurrency: 3, max_queue: 2, queue_timeout: 60s") as server:
        stubs = list((await server.by_process()).values())
        echo.script = Script(texts=["a", "b"], gate=gate, gate_after=1)
        asked = [asyncio.ensure_future(ask(stub)) for stub in stubs for _ in range(6)]
        done: set[asyncio.Future[str]] = set()
        while len(done) < 7:  # 3 run and 2 wait of 12
            done, _ = await asyncio.wait([task for task in asked if task not in done] + list(done), timeout=0.05)
            most = max(most, echo.open)
        assert await server.metric("polyroute_permits_in_use", deployment="m") <= 3
        assert await server.metric("polyroute_queued", deployment="m") == 2
        gate.set()
        answers = await asyncio.gather(*asked, return_exceptions=True)
    assert most <= 3
    refused = [error for error in answers if isinstance(error, grpc.aio.AioRpcError)]
    assert {error.code() for error in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert (len(refused), answers.count("ab")) == (7, 5)


async def test_a_process_that_dies_is_replaced_and_takes_nothing_with_it(tmp_path: Path) -> None:
    gate = asyncio.Event()
    echo = EchoBackend("m", script=Script(texts=["a"]))
    async with two(tmp_path, echo, ", max_concurrency: 2") as server:
        stubs = await server.by_process()
        before = await server.metric("polyroute_requests_total")
        echo.script = Script(texts=["a", "b"], gate=gate, gate_after=1)
        held = {number: asyncio.ensure_future(ask(stub)) for number, stub in stubs.items()}
        await until(lambda: echo.open == 2)
        os.kill(server.pids[0], signal.SIGKILL)
        with pytest.raises(grpc.aio.AioRpcError) as lost:
            await held[0]
        assert lost.value.code() is grpc.StatusCode.UNAVAILABLE
        retried = asyncio.ensure_future(ask(InferenceServiceStub(await server.channel())))  # its permit is free again
        await until(lambda: len(echo.calls) >= len(stubs) + 3)
        gate.set()
        assert await held[1] == "ab"
        assert await retried == "ab"
        await until(lambda: len(server.logged("front.listening")) == 3)
        assert server.logged("front.died")[0]["ending"] == "killed by SIGKILL"
        assert await server.metric("polyroute_router_process_restarts_total") == 1
        assert await server.metric("polyroute_requests_total") >= before + 2
        assert set(await server.by_process()) == {0, 1}


async def test_a_reload_holds_for_all_processes_once_it_is_answered(tmp_path: Path) -> None:
    echo = EchoBackend("m", script=Script(texts=["a"]))
    async with two(tmp_path, echo, ", max_concurrency: 64") as server:
        stubs, admin = await server.by_process(), await server.admin()
        path = tmp_path / "models.yaml"
        path.write_text(path.read_text() + "routes:\n  - {id: other, model: m}\n")
        gate = asyncio.Event()
        echo.script = Script(texts=["a", "b"], gate=gate, gate_after=1)
        held = [asyncio.ensure_future(ask(stub)) for stub in stubs.values()]
        await until(lambda: echo.open == 2)
        await admin.Reload(admin_pb2.ReloadRequest(), timeout=WAIT_S)
        echo.script = Script(texts=["c"])
        for stub in stubs.values():
            assert await ask(stub, model="other") == "c"
        gate.set()
        assert await asyncio.gather(*held) == ["ab", "ab"]
        path.write_text("nonsense: 1\n")
        reloaded = await admin.Reload(admin_pb2.ReloadRequest(), timeout=WAIT_S)
        assert reloaded.problems
        os.kill(server.pids[1], signal.SIGKILL)  # its replacement has the configuration that is in force
        await until(lambda: len(server.logged("front.listening")) == 3)
        for stub in (await server.by_process("other")).values():
            assert await ask(stub, model="other") == "c"
        assert not server.logged("front.not_reloaded")


async def test_what_one_finds_ill_all_leave_alone(tmp_path: Path) -> None:
    echo = EchoBackend("m", script=Script(texts=["a"]))
    async with two(tmp_path, echo, ", breaker: {failures: 3, open: 30s, max_open: 30s}, probe_interval: 1h") as server:
        stubs = await server.by_process()
        echo.script = Script(error=PeerFailed("ill"))
        for _ in range(3):
            assert await failing(stubs[0]) == "PEER_FAILED"
        made = len(echo.calls)
        assert await failing(stubs[0]) == "NO_HEALTHY_REPLICA"
        async with asyncio.timeout(WAIT_S):
            while await failing(stubs[1]) != "NO_HEALTHY_REPLICA":
                pass
        assert len(echo.calls) < made + 3  # which it would have had to find out by itself
        assert await server.metric("polyroute_replica_ejections_total", deployment="m") == 1


async def test_a_smaller_limit_holds_at_once(tmp_path: Path) -> None:
    echo = EchoBackend("m", script=Script(texts=["a"]))
    async with two(tmp_path, echo, ", max_concurrency: 64, max_queue: 64") as server:
        stubs, admin = await server.by_process(), await server.admin()  # so both have spare permits
        path = tmp_path / "models.yaml"
        path.write_text(path.read_text().replace("max_concurrency: 64", "max_concurrency: 1"))
        await admin.Reload(admin_pb2.ReloadRequest(), timeout=WAIT_S)
        most = 0

        async def look(_: int) -> None:
            nonlocal most
            most = max(most, echo.open)
            await asyncio.sleep(0)

        echo.script = Script(texts=["a", "b"], pause=look)
        answers = await asyncio.gather(*(ask(stub) for stub in stubs.values() for _ in range(20)))
        assert set(answers) == {"ab"}
        assert most == 1


async def test_it_drains_as_one(tmp_path: Path) -> None:
    gate = asyncio.Event()
    echo = EchoBackend("m", script=Script(texts=["a"]))
    async with two(tmp_path, echo) as server:
        stubs = await server.by_process()
        echo.script = Script(texts=["a", "b"], gate=gate, gate_after=1)
        held = [asyncio.ensure_future(ask(stub)) for stub in stubs.values()]
        await until(lambda: echo.open == 2)
        echo.script = Script(texts=["a"])
        server.process.send_signal(signal.SIGTERM)
        for stub in stubs.values():
            assert await refusal(stub) is grpc.StatusCode.UNAVAILABLE
        gate.set()
        assert await asyncio.gather(*held) == ["ab", "ab"]
        assert await asyncio.wait_for(server.process.wait(), WAIT_S) == 0
        assert not any(alive(pid) for pid in server.pids.values())
        assert not server.logged("front.died")


async def test_a_process_that_is_asked_to_end_takes_no_counts_with_it(tmp_path: Path) -> None:
    echo = EchoBackend("m")
    async with two(tmp_path, echo) as server:
        await server.by_process()
        os.kill(server.pids[0], signal.SIGTERM)
        await until(lambda: len(server.logged("front.listening")) == 3)
        assert server.logged("front.died")[0]["ending"] == "exit code 0"
        assert await server.metric("polyroute_requests_total", model="m", outcome="ok") == len(echo.calls)


async def test_a_process_that_cannot_serve_any_more_says_why(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("secret")
    async with two(tmp_path, EchoBackend("m"), f", api_key: {{file: {key}}}") as server:
        key.unlink()
        os.kill(server.pids[0], signal.SIGKILL)
        await until(lambda: len(server.logged("front.died")) >= 2)
        assert server.logged("front.died")[1]["ending"].startswith("it could not serve: ")
        assert str(key) in server.logged("front.died")[1]["ending"]
        server.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(server.process.wait(), WAIT_S) == 0


async def test_it_ends_before_its_processes_listen(tmp_path: Path) -> None:
    write(tmp_path, "127.0.0.1:9")
    config = str(tmp_path / "models.yaml")
    async with running(tmp_path, "--config", config, *FREE, "--workers", "2") as process:
        await until(lambda: len(children(process.pid)) == 2)
        for pid in children(process.pid):
            os.kill(pid, signal.SIGSTOP)
        process.send_signal(signal.SIGTERM)
        code, _, err = await ended(process)
        assert code == 0, err


def children(pid: int) -> list[int]:
    """The front processes of a home."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            command = (stat.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if parent == pid and b"polyroute.server.fronts" in command:
            found.append(int(stat.parent.name))
    return found


async def test_operators_calls_of_the_http_address_act_on_the_whole(tmp_path: Path) -> None:
    echo = EchoBackend("m")
    async with two(tmp_path, echo) as server:
        caller = Caller(f"http://{server.addresses['http']}", server.http)
        path = tmp_path / "models.yaml"
        path.write_text(path.read_text() + "routes:\n  - {id: other, model: m}\n")
        assert (await caller.call(RELOAD, {})).body["changed"]
        for stub in (await server.by_process("other")).values():
            assert await ask(stub, "hello", model="other") == "hello"
        unknown = await caller.call("polyroute.v1.AdminService/LoadModel", {"model": "n"})
        assert (unknown.status, unknown.body["code"]) == (404, "not_found")
        assert "ResourceInfo" in str(unknown.body["details"])
        foreign = await caller.call(RELOAD, {}, {"Origin": "https://evil.example"})
        assert (foreign.status, foreign.body["code"]) == (403, "permission_denied")
        path.write_text(path.read_text() + "console: {operate: off}\n")
        assert (await caller.call(RELOAD, {})).body["changed"]
        for _ in range(8):  # whichever process answers
            one = {"Connection": "close"}
            assert (await caller.call(RELOAD, {}, one)).status == 403


async def test_its_processes_end_with_it(tmp_path: Path) -> None:
    async with two(tmp_path, EchoBackend("m")) as server:
        server.process.kill()
        await server.process.wait()
        await until(lambda: not any(alive(pid) for pid in server.pids.values()))


async def test_an_invalidation_is_seen_by_all(tmp_path: Path) -> None:
    echo = EchoBackend("m", script=Script(texts=["a"]))
    async with two(tmp_path, echo) as server:
        path = tmp_path / "models.yaml"
        path.write_text(path.read_text().replace("mode: 'off'", "mode: always"))
        admin = await server.admin()
        await admin.Reload(admin_pb2.ReloadRequest(), timeout=WAIT_S)
        stubs = (await server.by_process()).values()
        for stub in stubs:
            await ask(stub, "kept")
        made = len(echo.calls)
        for stub in stubs:
            assert await ask(stub, "kept") == "a"
        assert len(echo.calls) == made
        stats = await admin.GetCacheStats(admin_pb2.GetCacheStatsRequest(), timeout=WAIT_S)
        assert stats.models[0].hits >= 2, server.lines
        await admin.InvalidateCache(admin_pb2.InvalidateCacheRequest(model="m"), timeout=WAIT_S)
        echo.script = Script(texts=["new"])
        for stub in stubs:
            assert await ask(stub, "kept") == "new"


async def test_another_server_on_the_port_is_refused(tmp_path: Path) -> None:
    async with two(tmp_path, EchoBackend("m")) as server:
        config = str(tmp_path / "models.yaml")
        for face in ("grpc", "http"):
            for workers in ("1", "2"):
                taken = (f"--{face}-address", server.addresses[face])
                async with running(tmp_path, "--config", config, *FREE, *taken, "--workers", workers) as process:
                    code, _, err = await ended(process)
                assert code == 1
                assert f"polyroute: cannot listen on {server.addresses[face]}" in err


async def test_a_connection_of_its_age_moves_on_and_loses_no_call(tmp_path: Path) -> None:
    async with two(tmp_path, EchoBackend("m"), more="limits: {max_connection_age: 300ms}\n") as server:
        stub, seen = InferenceServiceStub(await server.channel()), set()
        async with asyncio.timeout(WAIT_S):
            while seen != {0, 1}:
                seen.add(await server.process_of(stub))
        outcomes = Counter(line["outcome"] for line in server.logged("call.finished"))
        assert set(outcomes) == {"ok"}
