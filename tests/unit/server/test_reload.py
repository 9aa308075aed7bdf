"""A reload of a server's configuration: what it answers, logs and counts, and that reloads take turns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from polyroute.core.config_file import ConfigError
from polyroute.core.errors import Draining, StateUnavailable, Unimplemented
from polyroute.server.app import Server
from polyroute.server.config_watch import ConfigWatch
from polyroute.server.reload import LastReload, Reloaded
from polyroute.server.settings import Flags, settings

NOWHERE = "http://127.0.0.1:9"
ONE = f"models:\n  - {{id: m, type: remote, base_url: '{NOWHERE}'}}\n"
TWO = ONE + f"  - {{id: n, type: remote, base_url: '{NOWHERE}'}}\n"
ENVIRON = {"KEY": "sekret"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "models.yaml"
    path.write_text(ONE)
    return path


@pytest.fixture
async def server(path: Path, tmp_path: Path) -> AsyncIterator[Server]:
    """A server that has a configuration, and listens nowhere."""
    environ = {**ENVIRON, "POLYROUTE_CACHE_DIR": str(tmp_path / "cache")}
    server = Server(settings(Flags(config=path), environ), environ=environ)
    yield server
    await server.stop()


def count(server: Server, result: str) -> float:
    return server.registry.get_sample_value("polyroute_config_reloads_total", {"result": result}) or 0.0


async def test_a_changed_file_comes_into_force(server: Server, path: Path) -> None:
    before = await server.reload.check()
    path.write_text(TWO)
    with capture_logs() as logs:
        done = await server.reload.reload("call")
    assert (done.changed, done.changes.added, done.problems) == (True, ["n"], ())
    assert done.digest != before.digest
    assert [view.id for view in server.gateway.models()] == ["m", "n"]
    told = next(entry for entry in logs if entry["event"] == "config.reloaded")
    assert (told["trigger"], told["added"], told["hash"]) == ("call", ["n"], done.digest)
    assert count(server, "changed") == 1
    value = server.registry.get_sample_value
    assert value("polyroute_config_info", {"hash": done.digest}) == 1
    assert value("polyroute_config_info", {"hash": before.digest}) is None
    assert (value("polyroute_config_last_success_timestamp_seconds") or 0) > 0


async def test_a_file_that_says_the_same_changes_nothing(server: Server, path: Path) -> None:
    snapshot = server.gateway.snapshot
    path.write_text("# a remark\n" + ONE)
    done = await server.reload.reload("file")
    assert not done.changed
    assert server.gateway.snapshot is snapshot
    assert count(server, "unchanged") == 1


async def test_a_bad_file_changes_nothing_and_every_problem_is_told(server: Server, path: Path) -> None:
    snapshot, before = server.gateway.snapshot, await server.reload.check()
    path.write_text("colour: red\n" + TWO + "default_model: nobody\n")
    with capture_logs() as logs:
        done = await server.reload.reload("SIGHUP")
    assert [str(problem) for problem in done.problems] == [f"{path}:1: colour: unknown key"]
    assert (done.changed, done.digest) == (False, before.digest)
    assert server.gateway.snapshot is snapshot
    assert [entry["event"] for entry in logs] == ["config.problem", "config.rejected"]
    assert logs[0]["problem"] == f"{path}:1: colour: unknown key"
    assert all(entry["log_level"] == "error" for entry in logs)
    assert count(server, "rejected") == 1
    path.unlink()
    assert "cannot be read" in (await server.reload.reload("SIGHUP")).problems[0].message
    path.write_text(TWO)
    assert (await server.reload.reload("SIGHUP")).changes.added == ["n"]


async def test_a_check_tells_and_changes_nothing(server: Server, path: Path) -> None:
    snapshot = server.gateway.snapshot
    path.write_text(TWO)
    done = await server.reload.check()
    assert (done.changed, done.changes.added) == (False, ["n"])
    path.write_text("models: []")
    assert (await server.reload.check()).problems
    assert server.gateway.snapshot is snapshot
    assert count(server, "rejected") == 0


async def test_a_check_keeps_no_change_from_the_watch(server: Server, path: Path) -> None:
    assert server.reload.source is not None
    watch = ConfigWatch(server.reload.source, lambda: server.reload.reload("file"))
    path.write_text(TWO)
    assert (await server.reload.check()).changes.added == ["n"]
    for _ in range(2):  # looks that find the same
        await watch.look()
    assert [view.id for view in server.gateway.models()] == ["m", "n"]


async def test_a_secret_is_in_no_log_and_no_answer(server: Server, path: Path) -> None:
    path.write_text(ONE.replace("}", ", api_key: '${KEY}', headers: {x-key: '${KEY}'}}"))
    with capture_logs() as logs:
        done = await server.reload.reload("call")
    assert done.changes.rebuilt == ["m"]
    assert "sekret" not in f"{logs} {done} {server.gateway.snapshot}"


async def test_who_asks_while_one_is_running_shares_the_next(
    server: Server, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = server.reload.source
    assert source is not None
    read, gates, begun = source.read, [asyncio.Event() for _ in range(2)], 0
    loop = asyncio.get_running_loop()

    def slowly(environ: Any) -> Any:
        nonlocal begun
        config, gate = read(environ), gates[begun]
        begun += 1
        asyncio.run_coroutine_threadsafe(gate.wait(), loop).result()
        return config

    monkeypatch.setattr(source, "read", slowly)
    first = asyncio.create_task(server.reload.reload("call"))
    while begun < 1:  # noqa: ASYNC110 - it begins in another thread
        await asyncio.sleep(0.001)
    path.write_text(TWO)
    others = [asyncio.create_task(server.reload.reload("call")) for _ in range(5)]
    await asyncio.sleep(0)
    others[0].cancel()
    gates[0].set()
    gates[1].set()
    assert not (await first).changed
    later = await asyncio.gather(*others, return_exceptions=True)
    assert isinstance(later[0], asyncio.CancelledError)
    assert all(done is later[1] for done in later[1:])
    assert isinstance(later[1], Reloaded)
    assert later[1].changes.added == ["n"]
    assert begun == 2


async def test_our_bug_changes_nothing_and_is_counted(
    server: Server, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setattr("polyroute.routing.succession.Succession.to", fails)
    path.write_text(TWO)
    with capture_logs() as logs, pytest.raises(RuntimeError):
        await server.reload.reload("call")
    assert [entry["event"] for entry in logs] == ["config.reload_failed"]
    assert count(server, "failed") == 1
    monkeypatch.undo()
    assert (await server.reload.reload("call")).changed


async def test_limits_change_at_once_and_what_waits_for_a_start_is_named(server: Server, path: Path) -> None:
    path.write_text(ONE + "limits: {max_prompt_bytes: 100MiB, max_messages: 7}\n")
    done = await server.reload.reload("call")
    assert server.gateway.limits.max_messages == 7
    assert done.needs_restart == ("limits.max_prompt_bytes",)
    path.write_text(ONE + "limits: {max_prompt_bytes: 1MiB}\n")
    assert (await server.reload.reload("call")).needs_restart == ()
    assert server.gateway.limits.max_prompt_bytes == 2**20


async def test_a_server_without_a_file_has_nothing_to_reload(tmp_path: Path) -> None:
    environ = {"POLYROUTE_CACHE_DIR": str(tmp_path)}
    server = Server(settings(Flags(demo=True), environ), environ=environ)
    for asking in (server.reload.reload("call"), server.reload.check()):
        with pytest.raises(Unimplemented, match="nothing to reload: this server was started without a"):
            await asking
    await server.stop()


async def test_a_server_that_leaves_reloads_no_more(server: Server, path: Path) -> None:
    await server.drain(0)
    path.write_text(TWO)
    with pytest.raises(Draining):
        await server.reload.reload("call")


def test_the_first_file_must_be_good(path: Path) -> None:
    path.write_text("models: []")
    with pytest.raises(ConfigError):
        settings(Flags(config=path), {})


async def test_a_reload_waits_for_the_start_to_be_over(server: Server, path: Path) -> None:
    path.write_text(TWO)
    async with server.reload.turn:  # as `start` does
        asking = asyncio.create_task(server.reload.reload("SIGHUP"))
        await asyncio.sleep(0)
        assert [view.id for view in server.gateway.models()] == ["m"]
    assert (await asking).changes.added == ["n"]


async def test_how_the_last_reload_went_is_kept(server: Server, path: Path) -> None:
    assert server.reload.last is None
    since = server.reload.since
    path.write_text("colour: red\n" + ONE)
    rejected = await server.reload.reload("file")
    assert (server.reload.last, server.reload.since) == (LastReload(server.reload.last.at, "file", rejected), since)
    path.write_text(TWO)
    done = await server.reload.reload("SIGHUP")
    assert server.reload.last.done is done
    assert server.reload.since >= since
    assert [model.id for model in server.reload.config.models] == ["m", "n"]


async def test_a_reload_that_could_not_be_carried_out_says_why(
    server: Server, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object) -> None:
        raise StateUnavailable("the state database is away")

    monkeypatch.setattr(server.reload._succession, "to", refuse)
    path.write_text(TWO)
    with pytest.raises(StateUnavailable):
        await server.reload.reload("call")
    assert server.reload.last is not None
    assert (server.reload.last.done, server.reload.last.error) == (None, "the state database is away")
