"""A name's addresses become replicas, and follow the name; what cannot be resolved changes nothing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from structlog.testing import capture_logs

from polyroute.backends.pool import Pool
from polyroute.backends.remote.discovery import FAILED_WAIT_S, MOST_ADDRESSES, Discovery
from polyroute.backends.remote.names import Names as SystemNames
from polyroute.backends.remote.names import url_at
from polyroute.core.backend import ModelState
from polyroute.core.config import RemoteConfig
from polyroute.core.errors import NoReplica

NAME = "dns+http://peers.test:8000/base"


class Names:
    """A resolver that the test turns, answer by answer."""

    def __init__(self) -> None:
        self.answers: asyncio.Queue[Sequence[str] | Exception] = asyncio.Queue()
        self.asked: list[tuple[str, int]] = []
        self.waits: list[float] = []
        self._next = asyncio.Event()

    async def resolve(self, host: str, port: int) -> list[str]:
        self.asked.append((host, port))
        answer = await self.answers.get()
        if isinstance(answer, Exception):
            raise answer
        return list(answer)

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)

    async def say(self, answer: Sequence[str] | Exception) -> None:
        """Answers, and returns once that has been acted upon."""
        waits = len(self.waits)
        self.answers.put_nowait(answer)
        while len(self.waits) == waits:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0)
        await asyncio.sleep(0)  # whoever leaves does so beside it


@pytest.fixture
async def names() -> Names:
    return Names()


@pytest.fixture
async def pool(names: Names) -> AsyncIterator[Pool]:
    """A pool of whatever `names` says; its peers are never reached."""
    config = RemoteConfig(id="m", type="remote", base_urls=(NAME,), api="openai", resolve_interval=20)
    pool = Pool(config, sources=[Discovery(config, NAME, resolve=names.resolve, sleep=names.sleep)])
    before = asyncio.all_tasks()
    await pool.start()
    yield pool
    await pool.stop()
    assert asyncio.all_tasks() <= before | {asyncio.current_task()}


def replicas(pool: Pool) -> list[str]:
    return sorted(r.name for r in pool.status().replicas if r.state is not ModelState.DRAINING)


async def test_each_address_is_a_replica_and_they_follow_the_name(names: Names, pool: Pool) -> None:
    assert replicas(pool) == []
    await names.say(["10.255.0.1", "10.255.0.2"])
    assert names.asked[0] == ("peers.test", 8000)
    assert replicas(pool) == ["http://10.255.0.1:8000/base", "http://10.255.0.2:8000/base"]
    await names.say(["10.255.0.3", "10.255.0.2"])
    assert replicas(pool) == ["http://10.255.0.2:8000/base", "http://10.255.0.3:8000/base"]
    await names.say(["10.255.0.1", "10.255.0.2"])  # one comes back
    assert replicas(pool) == ["http://10.255.0.1:8000/base", "http://10.255.0.2:8000/base"]
    assert all(16 <= wait <= 24 for wait in names.waits)
    assert len(set(names.waits)) == 3


@pytest.mark.parametrize("answer", [OSError(-2, "no such name"), []])
async def test_a_failure_keeps_the_last_known_set(names: Names, pool: Pool, answer: Sequence[str] | OSError) -> None:
    await names.say(["10.255.0.1"])
    with capture_logs() as logs:
        await names.say(answer)
    assert replicas(pool) == ["http://10.255.0.1:8000/base"]
    assert any(line["log_level"] == "warning" and line.get("kept") == 1 for line in logs)
    await names.say(["10.255.0.2"])
    assert replicas(pool) == ["http://10.255.0.2:8000/base"]


async def test_a_name_that_cannot_be_resolved_is_told_and_asked_for_again_soon(names: Names, pool: Pool) -> None:
    await names.say(OSError(-2, "no such name"))
    assert names.waits[0] <= 1.2 * FAILED_WAIT_S
    assert pool.status().detail == "`m`: `peers.test` cannot be resolved: no such name"
    with pytest.raises(NoReplica, match=r"`peers\.test` cannot be resolved: no such name"):
        await pool.load()
    await names.say(["10.255.0.1"])
    assert pool.status().state is ModelState.LOADING


@pytest.mark.parametrize("error", [UnicodeError("label too long"), RuntimeError("a bug")])
async def test_whatever_goes_wrong_is_told_and_the_name_is_followed_all_the_same(
    names: Names, pool: Pool, error: Exception
) -> None:
    loading = asyncio.create_task(pool.load())
    with capture_logs() as logs:
        await names.say(error)
    assert [line["event"] for line in logs if line["log_level"] in ("warning", "error")]
    with pytest.raises(NoReplica, match=str(error)):
        await loading
    assert names.waits[0] <= 1.2 * FAILED_WAIT_S
    await names.say(["10.255.0.1"])
    assert replicas(pool) == ["http://10.255.0.1:8000/base"]


async def test_a_stop_ends_the_wait_for_the_first_answer(names: Names, pool: Pool) -> None:
    loading = asyncio.create_task(pool.load())
    while not names.asked:  # noqa: ASYNC110 - it tells nobody
        await asyncio.sleep(0)
    await pool.stop()
    with pytest.raises(NoReplica):
        await loading


async def test_more_addresses_than_the_limit_are_cut_the_same_way_each_time(names: Names, pool: Pool) -> None:
    addresses = [f"10.255.{i // 250}.{i % 250}" for i in range(MOST_ADDRESSES + 20)]
    with capture_logs() as logs:
        await names.say(addresses)
        first = replicas(pool)
        await names.say(addresses[::-1])
    assert len(first) == MOST_ADDRESSES
    assert replicas(pool) == first
    assert [line["limit"] for line in logs if line["event"] == "discovery.cut"] == [MOST_ADDRESSES] * 2


async def test_an_address_that_another_name_has_brought_already_is_one_replica(names: Names, pool: Pool) -> None:
    config = RemoteConfig(id="m", type="remote", base_urls=(NAME,), api="openai")
    twin = Discovery(config, NAME, resolve=names.resolve, sleep=names.sleep)
    await names.say(["10.255.0.1"])
    with capture_logs() as logs:
        await twin._follow(["10.255.0.1"], pool)
    assert replicas(pool) == ["http://10.255.0.1:8000/base"]
    assert [line["event"] for line in logs] == ["discovery.refused"]


@pytest.mark.parametrize(
    ("url", "address", "expected"),
    [
        ("http://name:8000", "10.0.0.1", "http://10.0.0.1:8000"),
        ("https://name/v1", "10.0.0.1", "https://10.0.0.1/v1"),
        ("http://name:1", "fd00::1", "http://[fd00::1]:1"),
        ("http://[::1]:1", "::1", "http://[::1]:1"),
    ],
)
def test_a_replica_is_named_after_its_address(url: str, address: str, expected: str) -> None:
    assert url_at(url, address) == expected


async def test_the_systems_resolver_gives_each_address_once_of_one_family() -> None:
    names = SystemNames()
    assert await names.resolve("127.0.0.1", 80) == ["127.0.0.1"]
    assert len(await names.resolve("localhost", 80)) == 1
    names.close()


async def test_the_systems_resolver_has_threads_of_its_own_until_it_is_closed() -> None:
    names, loop = SystemNames(), asyncio.get_running_loop()
    free, going_on = threading.Event(), ThreadPoolExecutor(1)
    loop.set_default_executor(going_on)
    files = loop.run_in_executor(None, free.wait)  # every thread for files is taken
    try:
        assert await names.resolve("127.0.0.1", 80) == ["127.0.0.1"]
        names.close()
        with pytest.raises(RuntimeError):
            await names.resolve("127.0.0.1", 80)
    finally:
        free.set()
        await files
