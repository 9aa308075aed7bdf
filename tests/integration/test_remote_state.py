"""What a remote backend knows of its peer: found out, kept, lost and found again."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from polyroute.backends.pool import Pool
from polyroute.backends.remote.backend import RemoteBackend
from polyroute.backends.remote.lists import Lists
from polyroute.backends.remote.turns import Turns
from polyroute.core.backend import ModelState
from polyroute.core.call import Call
from polyroute.core.config import DeploymentConfig, RemoteConfig
from polyroute.core.errors import PeerFailed, PeerUnreachable, PolyrouteError, Unavailable
from polyroute.core.event import Token
from polyroute.core.request import Request
from tests.integration.conftest import Remote
from tests.integration.peers import (
    WAIT_S,
    Connection,
    PeerRequest,
    Play,
    ScriptedPeer,
    answering,
    data,
    in_turn,
    models,
    streaming,
    until,
)

MODELS = "/v1/models"
CALL = Call(Request(model="m", prompt="hi"), "r1")
COMPLETION = streaming(data({"choices": [{"index": 0, "text": "openai", "finish_reason": "stop"}]}))
GENERATED = answering(b'{"model":"m","output":"generate","cached":false}')


async def answer(backend: RemoteBackend | Pool) -> str:
    return "".join([event.text async for event in backend.stream(CALL) if isinstance(event, Token)])


def both_dialects(peer: ScriptedPeer) -> None:
    peer.plays["/v1/completions"] = COMPLETION
    peer.plays["/v1/generate"] = GENERATED


LISTS = {
    "OpenAI's list": (models({"id": "m"}), "openai"),
    "an empty list": (answering(b'{"object":"list","data":[]}'), "openai"),
    "a Polyroute's": (answering(b'{"object":"list","data":[{"id":"m"}],"default_model":"m","models":["m"]}'), "openai"),
    "a legacy list": (answering(b'{"default_model":"m","models":["m"]}'), "generate"),
    "404": (answering(b"", status="404 Not Found"), "generate"),
    "405": (answering(b"", status="405 Method Not Allowed"), "generate"),
    "501": (answering(b"", status="501 Not Implemented"), "generate"),
    "HTML": (answering(b"<html>", kind="text/html"), "generate"),
    "wrong JSON": (answering(b'{"object":"li'), "generate"),
    "wrong entries": (answering(b'{"object":"list","data":[5,null,{"id":["m"]}]}'), "openai"),
}


@pytest.mark.parametrize("name", LISTS)
async def test_the_dialect_is_found_out_once(scripted_peer: ScriptedPeer, remote: Remote, name: str) -> None:
    both_dialects(scripted_peer)
    scripted_peer.plays[MODELS], dialect = LISTS[name]
    backend = remote(api="auto")
    assert await answer(backend) == dialect
    assert await answer(backend) == dialect
    assert len(scripted_peer.calls(MODELS)) == 1
    assert backend.status().chat is (dialect == "openai")


@pytest.mark.parametrize(
    ("play", "kind"),
    [
        (answering(b"", status="401 Unauthorized"), PeerFailed),
        (answering(b"", status="429 Too Many Requests"), PolyrouteError),
        (answering(b"", status="500 Internal Server Error"), PeerFailed),
        (answering(b"", status="503 Service Unavailable"), Unavailable),
        (answering(b"", "Location: /", status="302 Found"), PeerFailed),
    ],
)
async def test_an_answer_that_leaves_it_open_is_not_kept(
    scripted_peer: ScriptedPeer, remote: Remote, play: Play, kind: type[PolyrouteError]
) -> None:
    both_dialects(scripted_peer)
    scripted_peer.plays[MODELS] = in_turn(play, models())
    backend = remote(api="auto")
    with pytest.raises(kind):
        await answer(backend)
    assert backend.status().state is ModelState.FAILED
    assert await answer(backend) == "openai"
    assert backend.status().state is ModelState.WARM


REFUSALS = ["401 Unauthorized", "403 Forbidden", "429 Too Many Requests", "500 Internal Server Error", "302 Found"]


@pytest.mark.parametrize("status", REFUSALS)
async def test_a_peer_that_tells_nothing_of_itself_is_there_where_it_is_known_how_to_call_it(
    scripted_peer: ScriptedPeer, remote: Remote, status: str
) -> None:
    both_dialects(scripted_peer)
    scripted_peer.plays[MODELS] = answering(b"", status=status)
    backend = remote()
    await backend.load()
    assert backend.status().state is ModelState.WARM
    assert f"answered {status[:3]}" in backend.status().detail
    found_out = remote(api="auto")
    scripted_peer.plays[MODELS] = in_turn(models(), answering(b"", status=status))
    await found_out.load()
    await scripted_peer.hang_up()
    with pytest.raises(PeerUnreachable):
        await answer(found_out)
    assert found_out.status().state is ModelState.FAILED
    await scripted_peer.listen()
    await found_out.load()
    assert found_out.status().state is ModelState.WARM
    assert await answer(found_out) == "openai"


async def test_how_to_call_a_peer_that_tells_nothing_is_said_to_be_unknown(
    scripted_peer: ScriptedPeer, remote: Remote
) -> None:
    scripted_peer.plays[MODELS] = answering(b"", status="401 Unauthorized")
    backend = remote(api="auto")
    with pytest.raises(PeerFailed):
        await backend.load()
    assert backend.status().state is ModelState.FAILED
    assert backend.status().detail.endswith("so its dialect is not known, unless `api` says it")


async def test_a_peer_that_is_silent_or_speaks_no_http_is_none(scripted_peer: ScriptedPeer, remote: Remote) -> None:
    async def other(connection: Connection, _request: PeerRequest) -> None:
        await connection.send(b"SSH-2.0-nothing\r\n\r\n")
        connection.close()

    scripted_peer.plays[MODELS] = other
    backend = remote()
    with pytest.raises(PeerUnreachable, match="did not answer in HTTP"):
        await backend.load()
    assert backend.status().state is ModelState.FAILED


async def test_a_peer_that_was_lost_a_moment_ago_does_not_wait_behind_those_that_are_well(
    scripted_peer: ScriptedPeer,
) -> None:
    class Lines(Turns):
        def __init__(self) -> None:
            super().__init__(9, 9)
            self.asked: list[str] = []

        async def turn(self, line: str = "") -> None:
            self.asked.append(line)

    lines = Lines()
    config = RemoteConfig(id="m", type="remote", base_urls=(scripted_peer.url,), probe_interval=3600)
    await scripted_peer.hang_up()
    backend = RemoteBackend(config, scripted_peer.url, turns=lines)
    await backend.start()
    await until(lambda: len(lines.asked) == 2, "it was asked for again")
    assert lines.asked == ["", "lost"]
    await backend.stop()


async def test_callers_at_the_same_time_share_one_question(scripted_peer: ScriptedPeer, remote: Remote) -> None:
    both_dialects(scripted_peer)
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def slow(connection: Connection, request: PeerRequest) -> None:
        asked.set()
        await go_on.wait()
        await models()(connection, request)

    scripted_peer.plays[MODELS] = slow
    backend = remote(api="auto")
    leaver, *stayers = [asyncio.create_task(answer(backend)) for _ in range(5)]
    await asyncio.wait_for(asked.wait(), WAIT_S)
    leaver.cancel()
    await asyncio.gather(leaver, return_exceptions=True)
    go_on.set()
    assert await asyncio.gather(*stayers) == ["openai"] * 4
    assert leaver.cancelled()
    assert len(scripted_peer.calls(MODELS)) == 1


async def test_it_is_asked_in_the_background_at_the_start(scripted_peer: ScriptedPeer, remote: Remote) -> None:
    scripted_peer.plays[MODELS] = models({"id": "x"}, {"id": "theirs", "version": "7", "context_length": 4096})
    backend = remote(api="auto", peer_model="theirs")
    before = backend.status()
    assert (before.state, before.version, before.chat) == (ModelState.LOADING, "", True)
    await backend.start()
    await until(lambda: backend.status().state is ModelState.WARM, "the peer was reached")
    status = backend.status()
    assert (status.version, status.context_length, status.detail) == ("7", 4096, "")
    assert status.ready_since > 0
    assert (status.replicas[0].name, status.replicas[0].version) == (scripted_peer.url, "7")


async def test_of_several_models_of_one_peer_one_asks_for_all_unless_what_it_was_told_does_not_do(
    scripted_peer: ScriptedPeer,
) -> None:
    lists = Lists()

    def backend(id: str, **options: object) -> RemoteBackend:
        fields = {"id": id, "type": "remote", "base_url": scripted_peer.url, "probe_interval": 3600, **options}
        return RemoteBackend(RemoteConfig.model_validate(fields), scripted_peer.url, lists=lists)

    scripted_peer.plays[MODELS] = models({"id": "a", "version": "1", "description": "x"}, {"id": "b", "version": "2"})
    first, second, other = backend("a"), backend("b"), backend("a", headers={"X-Tenant": "t"})
    await first.load()
    lists._clock = lambda: 0.0  # it stays a moment ago
    [(_, told)] = lists._kept.values()
    assert told.models == {"a": {"version": "1"}, "b": {"version": "2"}}, "nothing is kept that nobody asks for"
    try:
        await second.start()
        await until(lambda: second.status().state is ModelState.WARM, "it was told of")
        assert (first.status().version, second.status().version) == ("1", "2")
        assert len(scripted_peer.calls(MODELS)) == 1
        await other.load()
        assert len(scripted_peer.calls(MODELS)) == 2
        scripted_peer.plays[MODELS] = models({"id": "b", "version": "3"})
        second._watch.doubt()
        await until(lambda: second.status().version == "3", "what was doubted was asked for")
        assert len(scripted_peer.calls(MODELS)) == 3
    finally:
        for one in (first, second, other):
            await one.stop()


async def test_vllms_length_and_no_version(scripted_peer: ScriptedPeer, remote: Remote) -> None:
    scripted_peer.plays[MODELS] = models({"id": "m", "max_model_len": 2048})
    backend = remote()
    await backend.load()
    assert (backend.status().version, backend.status().context_length) == ("unversioned", 2048)


async def test_the_configured_version_wins(scripted_peer: ScriptedPeer, remote: Remote) -> None:
    scripted_peer.plays[MODELS] = models({"id": "m", "version": "7"})
    backend = remote(version="mine")
    assert backend.status().version == "mine"
    await backend.load()
    assert backend.status().version == "mine"


async def test_a_peer_that_does_not_list_the_model_says_so(scripted_peer: ScriptedPeer, remote: Remote) -> None:
    backend = remote(peer_model="another")
    await backend.load()
    assert backend.status().state is ModelState.WARM
    assert "does not list `another`" in backend.status().detail


async def test_lost_by_a_call_and_found_by_a_call(scripted_peer: ScriptedPeer, remote: Remote) -> None:
    both_dialects(scripted_peer)
    backend = remote()
    assert await answer(backend) == "openai"
    await scripted_peer.hang_up()
    with pytest.raises(PeerUnreachable):
        await answer(backend)
    status = backend.status()
    assert status.state is ModelState.FAILED
    assert "cannot connect" in status.detail
    assert status.ready_since == 0
    await scripted_peer.listen()
    assert await answer(backend) == "openai"
    assert backend.status().state is ModelState.WARM
    assert backend.status().detail == ""


async def test_a_peer_that_comes_late_or_comes_back_is_found_in_the_background(
    scripted_peer: ScriptedPeer, remote: Remote
) -> None:
    both_dialects(scripted_peer)
    url = scripted_peer.url
    await scripted_peer.hang_up()
    backend = remote(url, api="auto")
    await backend.start()
    await until(lambda: backend.status().state is ModelState.FAILED, "the peer was missed")
    with pytest.raises(PeerUnreachable):
        await backend.load()
    await scripted_peer.listen()
    await until(lambda: backend.status().state is ModelState.WARM, "the peer was found")
    await scripted_peer.hang_up()
    with pytest.raises(PeerUnreachable):
        await answer(backend)
    await scripted_peer.listen()
    await until(lambda: backend.status().state is ModelState.WARM, "the peer was found again")


async def test_a_bad_answer_does_not_make_a_peer_unreachable(scripted_peer: ScriptedPeer, remote: Remote) -> None:
    scripted_peer.plays["/v1/completions"] = answering(b"{}")
    backend = remote()
    await backend.load()
    with pytest.raises(PeerFailed):
        await answer(backend)
    assert backend.status().state is ModelState.WARM


async def test_a_pool_passes_over_the_peer_that_is_gone(scripted_peer: ScriptedPeer, remote: Remote) -> None:
    both_dialects(scripted_peer)
    gone = remote("http://127.0.0.1:9")
    pool = Pool(DeploymentConfig(id="m"), [gone, remote()])
    await pool.load()
    assert [await answer(pool) for _ in range(4)] == ["openai"] * 4
    assert pool.status().state is ModelState.WARM
    assert [replica.state for replica in pool.status().replicas] == [ModelState.FAILED, ModelState.WARM]


async def test_an_idle_peer_that_is_stopped_leaves_nothing(scripted_peer: ScriptedPeer, remote: Remote) -> None:
    """Amid its first question, too; the fixture looks at what is left."""

    async def silent(_connection: Connection, _request: PeerRequest) -> None:
        """Never answers."""

    scripted_peer.plays[MODELS] = silent
    backend = remote(api="auto")
    await backend.start()
    waiting = asyncio.create_task(answer(backend))
    await asyncio.wait_for(scripted_peer.arrived.wait(), WAIT_S)
    await backend.stop()
    with pytest.raises(Unavailable):
        await waiting


@pytest.fixture
async def secure_peer(tmp_path: Path) -> AsyncIterator[ScriptedPeer]:
    """A peer with a certificate for 127.0.0.1 and peers.test that it has signed itself, `cert.pem`."""
    made = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=peer"
    command = ["openssl", *made.split(), "-addext", "subjectAltName=IP:127.0.0.1,DNS:peers.test"]
    files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    await asyncio.to_thread(subprocess.run, [*command, *files], check=True, capture_output=True, timeout=WAIT_S)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    peer = ScriptedPeer({MODELS: models(), "/v1/completions": COMPLETION}, tls=tls)
    await peer.listen()
    yield peer
    await peer.hang_up()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
async def test_tls(secure_peer: ScriptedPeer, remote: Remote, tmp_path: Path) -> None:
    trusting = remote(secure_peer.url, tls={"ca_file": tmp_path / "cert.pem"})
    assert await answer(trusting) == "openai"
    assert await answer(remote(secure_peer.url, tls={"verify": False})) == "openai"
    with pytest.raises(PeerUnreachable, match="certificate is not trusted"):
        await answer(remote(secure_peer.url))
    with pytest.raises(PeerUnreachable, match=r"tls\.ca_file cannot be used"):
        await answer(remote(secure_peer.url, tls={"ca_file": tmp_path / "missing.pem"}))


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
async def test_tls_keeps_to_the_name_whose_address_is_called(
    secure_peer: ScriptedPeer, remote: Remote, tmp_path: Path
) -> None:
    trust = {"ca_file": tmp_path / "cert.pem"}
    called = remote(f"https://peers.test:{secure_peer.port}", address="127.0.0.1", tls=trust)
    assert await answer(called) == "openai"
    assert secure_peer.requests[-1].headers["host"] == f"peers.test:{secure_peer.port}"
    assert called.status().replicas[0].name == secure_peer.url
    with pytest.raises(PeerUnreachable, match="certificate is not trusted"):
        await answer(remote(f"https://others.test:{secure_peer.port}", address="127.0.0.1", tls=trust))


async def test_a_handshake_that_is_not_answered_is_bounded(scripted_peer: ScriptedPeer, remote: Remote) -> None:
    with pytest.raises(PeerUnreachable, match="no connection in time"):
        await answer(remote(scripted_peer.url.replace("http:", "https:"), connect_timeout=0.3))


async def test_a_peer_that_falls_away_while_no_call_comes_is_noticed(
    scripted_peer: ScriptedPeer, remote: Remote
) -> None:
    backend = remote(probe_interval=0.02)
    await backend.start()
    await until(lambda: backend.status().state is ModelState.WARM, "the peer was reached")
    await scripted_peer.hang_up()
    await until(lambda: backend.status().state is ModelState.FAILED, "the peer was missed")
    await scripted_peer.listen()
    await until(lambda: backend.status().state is ModelState.WARM, "the peer was found again")
