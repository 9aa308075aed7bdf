"""Fixtures for tests on real sockets: scripted peers, and backends that must leave nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeAlias

import pytest

from polyroute.backends.remote.backend import RemoteBackend
from polyroute.core.config import RemoteConfig
from tests.integration.peers import ScriptedPeer, models, until

Remote: TypeAlias = Callable[..., RemoteBackend]


@pytest.fixture
async def scripted_peer() -> AsyncIterator[ScriptedPeer]:
    """A peer that lists the model `m`, and has nothing else until a test gives it a play."""
    peer = ScriptedPeer({"/v1/models": models()})
    await peer.listen()
    yield peer
    await peer.hang_up()


@pytest.fixture
async def remote(scripted_peer: ScriptedPeer) -> AsyncIterator[Remote]:
    """Makes backends for the model `m` at the scripted peer; afterwards no task and no connection of theirs is left."""
    made: list[RemoteBackend] = []
    before = asyncio.all_tasks()

    def make(url: str = "", address: str | None = None, **config: Any) -> RemoteBackend:
        url = url or scripted_peer.url
        options = {"api": "openai", **config}
        made.append(RemoteBackend(RemoteConfig(id="m", type="remote", base_urls=(url,), **options), url, address))
        return made[-1]

    yield make
    for backend in made:
        await backend.stop()
    assert [backend.status().replicas[0].in_flight for backend in made] == [0] * len(made)
    await until(lambda: scripted_peer.open == 0, "every connection was closed")
    others = before | {connection.task for connection in scripted_peer.connections} | {asyncio.current_task()}
    await until(lambda: asyncio.all_tasks() <= others, "every task ended")
