"""Who may operate a running server from its HTTP address, and what the console is told of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from polyroute.backends.echo import EchoBackend
from polyroute.core.config import Config, RemoteConfig
from polyroute.server.settings import Flags, settings
from tests.integration.connect_client import GENERATE, STREAM, calling, envelope
from tests.integration.grpc_serving import serving, settings_for
from tests.integration.peers import SSE, WAIT_S, Connection, PeerRequest, ScriptedPeer, chunk, head, said

ADMIN = "polyroute.v1.AdminService/GetCacheStats"
RELOAD = "polyroute.v1.AdminService/Reload"
SESSION = "console/session"


async def test_the_console_is_told_that_its_caller_may_operate(tmp_path: Path) -> None:
    async with serving(EchoBackend("m"), folder=tmp_path) as served, calling(served.server) as caller:
        async with caller.client.get(f"{caller.url}/{SESSION}") as answer:
            told = await answer.json()
            assert answer.headers["Cache-Control"] == "no-store"
        allowed = {"operate": True, "operate_refused": "", "experiments": False}
        assert told == {**allowed, "version": told["version"], "grpc_port": served.server.grpc_address.port}
        assert (await caller.call(ADMIN, {})).status == 200


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ({"Origin": "https://evil.example"}, "another site"),
        ({"Sec-Fetch-Site": "cross-site"}, "another site"),
        ({"Host": "evil.example"}, "loopback name"),
        ({"X-Forwarded-For": "10.0.0.7"}, "proxy"),
    ],
)
async def test_those_who_only_look_local_may_not(tmp_path: Path, headers: dict[str, str], why: str) -> None:
    async with serving(EchoBackend("m"), folder=tmp_path) as served, calling(served.server) as caller:
        told = await caller.call(ADMIN, {}, headers)
        assert (told.status, told.body["code"]) == (403, "permission_denied")
        assert why in told.body["message"]
        assert told.details["google.rpc.ErrorInfo"].reason == "PERMISSION_DENIED"
        async with caller.client.get(f"{caller.url}/{SESSION}", headers=headers) as answer:
            session = await answer.json()
        assert not session["operate"]
        assert why in session["operate_refused"]
        assert (await caller.call(GENERATE, {"prompt": "x"}, headers)).status == 200, "models are for everybody"


async def test_a_reload_moves_the_rule(tmp_path: Path) -> None:
    file = tmp_path / "models.yaml"
    model = "models: [{id: m, type: remote, base_url: 'http://127.0.0.1:9'}]\n"
    file.write_text(model)
    anywhere = "127.0.0.1:0"
    flags = Flags(config=file, grpc_address=anywhere, http_address=anywhere, admin_address=anywhere, watch=False)
    chosen = settings(flags, {"POLYROUTE_STATE_URL": f"sqlite:///{tmp_path}/state.db"})
    async with (
        serving(EchoBackend("m"), folder=tmp_path, settings=chosen) as served,
        calling(served.server) as caller,
    ):
        file.write_text(model + "console: {operate: off}\n")
        assert (await caller.call(RELOAD, {})).body["changed"]
        told = await caller.call(RELOAD, {})
        assert told.status == 403
        assert "switched off" in told.body["message"]


async def test_that_everybody_may_operate_is_warned_of(tmp_path: Path) -> None:
    file = tmp_path / "models.yaml"
    text = "models: [{id: m, type: remote, base_url: 'http://127.0.0.1:9'}]\nconsole: {operate: all}\n"
    file.write_text(text)
    anywhere = "127.0.0.1:0"
    flags = Flags(config=file, grpc_address=anywhere, http_address=anywhere, admin_address=anywhere, watch=False)
    chosen = settings(flags, {"POLYROUTE_STATE_URL": f"sqlite:///{tmp_path}/state.db"})
    with capture_logs() as logged:
        async with serving(EchoBackend("m"), folder=tmp_path, settings=chosen) as served:
            file.write_text(text + "limits: {max_messages: 8}\n")
            await served.server.reload.reload("call")
            assert [line["event"] for line in logged].count("console.open") == 1, "once, while nothing of it changes"
            for rule in ("{operate: off}", "{operate: all}"):
                file.write_text(text.replace("{operate: all}", rule))
                await served.server.reload.reload("call")
            assert [line["event"] for line in logged].count("console.open") == 2


async def test_a_caller_that_leaves_closes_the_socket_to_the_peer(tmp_path: Path, scripted_peer: ScriptedPeer) -> None:
    async def hang(connection: Connection, _request: PeerRequest) -> None:
        await connection.send(head(SSE), chunk(said("once")))
        await connection.gone.wait()

    scripted_peer.plays["/v1/chat/completions"] = hang
    remote = RemoteConfig(id="m", type="remote", base_urls=(scripted_peer.url,), api="openai")
    chosen = replace(settings_for(EchoBackend("m"), folder=tmp_path), config=Config(models=(remote,)))
    async with serving(folder=tmp_path, settings=chosen) as served, calling(served.server) as caller:
        message = envelope({"messages": {"messages": [{"role": "user", "content": "x"}]}})
        sent = {"Content-Type": "application/connect+json"}
        async with caller.client.post(f"{caller.url}/{STREAM}", data=message, headers=sent) as answer:
            seen = b""
            while b"once" not in seen:
                seen += await answer.content.readany()
            asked = next(one for one in scripted_peer.requests if one.path == "/v1/chat/completions")
            assert not asked.connection.gone.is_set()
            answer.close()
        async with asyncio.timeout(WAIT_S):
            await asked.connection.gone.wait()
