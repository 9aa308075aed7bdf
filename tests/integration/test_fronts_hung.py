"""Router processes that hang or crash: their home ends and replaces them, and has what they counted."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile

import aiohttp
import pytest

from polyroute.backends.echo import EchoBackend
from polyroute.server.fronts.home import Home
from polyroute.server.fronts.messages.exposing import Family
from tests.integration.grpc_serving import settings_for, until

REQUESTS = "polyroute_requests_total"


@asynccontextmanager
async def homes_of(folder: Path, workers: int) -> AsyncIterator[Home]:
    """A home in this process, with fronts of their own, over one model whose peer nobody is."""
    with TemporaryFile() as turns:
        home = Home(replace(settings_for(EchoBackend("m"), folder=folder), workers=workers), turns.fileno())
        try:
            await home.start()
            yield home
        finally:
            await home.stop()


def pids(home: Home) -> list[int]:
    """Of the fronts that listen."""
    return [front.process.pid for front in home._listening() if front.process is not None]


def counted(families: Iterable[Family], name: str) -> float:
    return sum(sample.value for family in families for sample in family.samples if sample.name == name)


async def get(home: Home, path: str) -> str:
    """A page, by a connection of its own."""
    async with aiohttp.ClientSession() as session, session.get(f"http://{home.http_address}{path}") as answer:
        return await answer.text()


async def test_a_process_that_hangs_is_ended_and_another_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polyroute.server.fronts.process._SILENCE_S", 8.0)
    async with homes_of(tmp_path, 2) as home:
        hung, well = pids(home)
        os.kill(hung, signal.SIGSTOP)
        await until(lambda: hung not in pids(home))
        await until(lambda: len(pids(home)) == 2)
        assert well in pids(home)
        text = await get(home, "/metrics")
        assert "polyroute_router_process_restarts_total 1.0" in text
        assert "polyroute_router_processes 2.0" in text


async def test_what_a_process_counted_before_it_crashed_is_told_though_nobody_had_asked(tmp_path: Path) -> None:
    async with homes_of(tmp_path, 1) as home:
        async with aiohttp.ClientSession() as session:
            url = f"http://{home.http_address}/v1/generate"
            for _ in range(3):
                async with session.post(url, json={"prompt": "x"}) as answer:
                    assert answer.status == 503
        front = home._fronts[0]
        await until(lambda: counted(front.counts, REQUESTS) == 3)
        [before] = pids(home)
        os.kill(before, signal.SIGKILL)
        await until(lambda: pids(home) not in ([], [before]))
        text = await get(home, "/metrics")
        of_calls = [line for line in text.splitlines() if line.startswith(REQUESTS)]
        assert sum(float(line.rpartition(" ")[2]) for line in of_calls) == 3


async def test_all_that_was_sent_to_a_process_that_hung_is_let_go_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polyroute.server.fronts.process._MOST_UNREAD", 1 << 20)
    async with homes_of(tmp_path, 1) as home:
        [hung] = pids(home)
        link, process = home._fronts[0].link, home._fronts[0].process
        assert link is not None
        assert process is not None
        os.kill(hung, signal.SIGSTOP)
        asked = [asyncio.ensure_future(link.apply(b"x" * 2**18)) for _ in range(16)]
        await until(lambda: pids(home) not in ([], [hung]))
        ended = await asyncio.gather(*asked, return_exceptions=True)
        assert {str(error) for error in ended} == {"the router process has ended"}
        assert process._link.unsent == 0
