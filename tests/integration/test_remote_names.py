"""Replicas behind a name, on real sockets: they come and go with its addresses, and are called by the name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from polyroute.backends.pool import Pool
from polyroute.backends.remote.discovery import Discovery
from polyroute.core.call import Call
from polyroute.core.config import RemoteConfig
from polyroute.core.event import Started, Token
from polyroute.core.request import Request
from tests.integration.peers import Connection, PeerRequest, ScriptedPeer, chunk, data, head, models, streaming, until

COMPLETIONS = "/v1/completions"
PART = data({"choices": [{"index": 0, "text": "part "}]})
LAST = data({"choices": [{"index": 0, "text": "end", "finish_reason": "stop"}]})
CALL = Call(Request(model="m", prompt="hi"), "r1")


class Name:
    """A resolver's answer that a test may change; each look-up waits until it has."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.changed = asyncio.Event()

    async def resolve(self, _host: str, _port: int) -> list[str]:
        return self.addresses

    async def sleep(self, _seconds: float) -> None:
        await self.changed.wait()
        self.changed.clear()

    def becomes(self, *addresses: str) -> None:
        self.addresses = list(addresses)
        self.changed.set()


@pytest.fixture
async def old_and_new() -> AsyncIterator[tuple[ScriptedPeer, ScriptedPeer]]:
    """Two peers at different loopback addresses and the same port."""
    old = ScriptedPeer({"/v1/models": models(), COMPLETIONS: streaming(PART, LAST)})
    await old.listen()
    new = ScriptedPeer(dict(old.plays), port=old.port, host="127.0.0.2")
    await new.listen()
    yield old, new
    await old.hang_up()
    await new.hang_up()


async def answer(pool: Pool) -> tuple[str, str]:
    """The replica that answered, and the text."""
    events = [event async for event in pool.stream(CALL)]
    assert isinstance(events[0], Started)
    return events[0].route.replica, "".join(event.text for event in events if isinstance(event, Token))


async def test_calls_follow_the_name_and_those_in_flight_end_where_they_are(
    old_and_new: tuple[ScriptedPeer, ScriptedPeer],
) -> None:
    old, new = old_and_new
    going_on = asyncio.Event()

    async def slowly(connection: Connection, _request: PeerRequest) -> None:
        await connection.send(head("text/event-stream"), chunk(PART))
        await going_on.wait()
        await connection.send(chunk(LAST), chunk(b""))

    old.plays[COMPLETIONS] = slowly
    before = asyncio.all_tasks()
    url = f"dns+http://peers.test:{old.port}"
    config = RemoteConfig(id="m", type="remote", base_urls=(url,), api="openai")
    name = Name()
    name.addresses = ["127.0.0.1"]
    pool = Pool(config, sources=[Discovery(config, url, resolve=name.resolve, sleep=name.sleep)])
    await pool.start()
    await pool.load()
    in_flight = asyncio.create_task(answer(pool))
    await until(lambda: len(old.calls(COMPLETIONS)) == 1, "the call reached the old one")
    name.becomes("127.0.0.2")
    await until(lambda: len(pool.status().replicas) == 2, "it has moved")
    assert [await answer(pool) for _ in range(3)] == [(new.url, "part end")] * 3
    assert [r.state.name for r in pool.status().replicas if r.name == old.url] == ["DRAINING"]
    going_on.set()
    assert await in_flight == (old.url, "part end")
    await until(lambda: [r.name for r in pool.status().replicas] == [new.url], "the old one was left")
    await until(lambda: old.open == 0, "its sockets were closed")
    assert {request.headers["host"] for request in old.requests + new.requests} == {f"peers.test:{old.port}"}
    await pool.stop()
    await until(lambda: new.open == 0, "the sockets of the new one were closed")
    others = before | {connection.task for peer in old_and_new for connection in peer.connections}
    await until(lambda: asyncio.all_tasks() <= others, "every task ended")
