"""Answers in a real Redis, machines that tell each other what they invalidate, and leases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from polyroute.core.event import Finished, FinishReason, Token
from polyroute.routing.cache import redis_tier, sharing
from polyroute.routing.cache.answers import Answers
from polyroute.routing.cache.codec import StoredAnswer
from polyroute.routing.cache.leases import Leases
from polyroute.routing.cache.redis_client import connect
from polyroute.routing.cache.terms import AnswerKey, Moment, Stay, Terms
from polyroute.server.cache_tiers import tiers_of
from polyroute.server.settings import Flags, settings
from tests.integration.redis_server import RedisServer, redis_server

WAIT_S = 60.0
TERMS = Terms("m")
FAR = Terms("m", None, None, (Stay("redis"),))


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as server:
        yield server


@pytest.fixture
def machine(redis: RedisServer, tmp_path: Path) -> Callable[..., Any]:
    """The cache of a server on a machine of that name, which shares the Redis; a second one is a second process."""

    @asynccontextmanager
    async def _machine(name: str) -> AsyncIterator[Answers]:
        environ = {"POLYROUTE_CACHE_DIR": str(tmp_path / name), "POLYROUTE_REDIS_URL": redis.url}
        answers = tiers_of(settings(Flags(demo=True), environ))
        for tier in answers.below:
            tier.tier.get_s = tier.tier.put_s = WAIT_S
        await answers.start()
        try:
            await until(lambda: answers._sharing is not None and answers._sharing.connected)
            yield answers
        finally:
            await answers.close()

    return _machine


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not holds():  # noqa: ASYNC110 - what is waited for happens in Redis
            await asyncio.sleep(0.005)


async def kept(answers: Answers, canonical: bytes = b"a", terms: Terms = TERMS, text: str = "hello") -> AnswerKey:
    key = answers.key("m", canonical)
    answer = StoredAnswer(canonical, "m", "v1", (Token(text),), Finished(FinishReason.STOP), answers._wall(), 0.5)
    assert answers.keep(key, answer, terms)
    await answers.flush()
    return key


async def tier_of(answers: Answers, canonical: bytes = b"a", terms: Terms = TERMS) -> str:
    found = await answers.find(answers.key("m", canonical), terms)
    await answers.flush()
    return "" if found is None else found.tier


async def test_what_one_machine_stores_others_find_and_keep_nearby(machine: Callable[..., Any]) -> None:
    async with machine("one") as one, machine("two") as two:
        await kept(one, text="word " * 1000)
        found = await two.find(two.key("m", b"a"), TERMS)
        assert found is not None
        assert (found.tier, found.answer.tokens) == ("redis", (Token("word " * 1000),))
        await two.flush()
        two.memory.forget(two.key("m", b"a").digest)
        assert await tier_of(two) == "disk"
        assert await tier_of(two) == "memory"


async def test_entries_have_a_time_to_live_and_a_name_of_ours(machine: Callable[..., Any], redis: RedisServer) -> None:
    async with machine("one") as one:
        key = await kept(one)
        hour = await kept(one, b"b", Terms("m", 3600.0))
        with closing(redis.client()) as client:
            name = f"polyroute:answer:{key.digest}"
            assert 0.9 * redis_tier.LONGEST_STAY_S < client.ttl(name) <= redis_tier.LONGEST_STAY_S
            assert 3200 < client.ttl(f"polyroute:answer:{hour.digest}") <= 3600
            assert all(each.startswith(b"polyroute:") for each in client.scan_iter())


async def test_nothing_shows_the_password(machine: Callable[..., Any], redis: RedisServer) -> None:
    with capture_logs() as logs:
        async with machine("one") as one:
            stats = await one.stats()
            assert stats.tiers[2].location == f"redis://127.0.0.1:{redis.port}/0"
            redis.kill()
            await tier_of(one, terms=FAR)
            shown = [repr(one), repr(await one.stats())]
    assert logs
    assert "secret-word" not in repr((logs, shown))


@pytest.mark.parametrize("model", ["m", ""])
async def test_an_invalidation_is_in_force_on_all_machines(machine: Callable[..., Any], model: str) -> None:
    async with machine("one") as one, machine("one") as sibling, machine("two") as two:
        await kept(one)
        assert [await tier_of(each) for each in (sibling, two)] == ["disk", "redis"]
        before = two.key("m", b"a").moment
        assert await one.invalidate(model) == 1
        assert await tier_of(one) == await tier_of(sibling) == ""
        await until(lambda: two.key("m", b"a").moment != before)
        assert await tier_of(two) == ""
        assert two.key("m", b"a").moment.shared == one.key("m", b"a").moment.shared
        await kept(two)
        assert await tier_of(one) == "redis"


async def test_a_single_answer_is_forgotten_on_all_machines(machine: Callable[..., Any]) -> None:
    async with machine("one") as one, machine("two") as two:
        key = await kept(one)
        await kept(one, b"b")
        assert await tier_of(two) == "redis"
        assert await one.forget(key.digest) == 1
        assert await tier_of(one) == ""
        await until(lambda: len(two.memory) == 0)
        while await two.below[0].get(key.digest) is not None:
            pass
        assert await tier_of(two) == ""
        assert await tier_of(two, b"b") == "redis"


async def test_a_machine_that_was_away_catches_up(machine: Callable[..., Any]) -> None:
    async with machine("one") as one:
        key = await kept(one)
        await kept(one, b"b")
        async with machine("two") as two:
            assert [await tier_of(two), await tier_of(two, b"b")] == ["redis", "redis"]
        await one.forget(key.digest)
        async with machine("two") as two:
            assert [await tier_of(two), await tier_of(two, b"b")] == ["", "disk"]
        await one.invalidate("m")
        async with machine("two") as two:
            assert await tier_of(two, b"b") == ""


async def test_what_others_wrote_among_the_invalidations_is_passed_over(
    machine: Callable[..., Any], redis: RedisServer
) -> None:
    name = bytes([2]) + bytes(32)
    with closing(redis.client()) as client:
        client.hset("polyroute:invalidated", mapping={name: "soon", b"\x03" + bytes(32): 2**70, b"x": 1})
        client.zadd("polyroute:forgotten", {b"\x04" + bytes(32): "inf"})
        async with machine("one") as one, machine("two") as two:
            client.publish("polyroute:invalidations", name + b"-1")
            client.publish("polyroute:invalidations", name + b"9" * 30)
            await kept(one)
            assert await tier_of(two) == "redis"
            await one.invalidate("m")
            await until(lambda: two.at_hand(two.key("m", b"a"), TERMS) is None)


async def test_what_is_invalidated_while_redis_is_away_is_told_afterwards(
    machine: Callable[..., Any], redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "_AGAIN_S", (0.01, 0.01))
    async with machine("one") as one, machine("two") as two:
        key = await kept(one)
        await kept(one, b"b")
        assert [await tier_of(two), await tier_of(two, b"b")] == ["redis", "redis"]
        redis.kill()
        await one.forget(key.digest)
        assert [await tier_of(one), await tier_of(one, b"b"), await tier_of(two)] == ["", "memory", "memory"]
        redis.start()
        await until(lambda: len(two.memory) == 1)
        before = two.key("m", b"a").moment
        redis.kill()
        await one.invalidate()
        redis.start()
        await until(lambda: two.key("m", b"a").moment.local != before.local)
        assert await tier_of(two, b"b") == ""


async def test_a_redis_that_has_lost_its_memory_gives_nothing_old_back(
    machine: Callable[..., Any], redis: RedisServer
) -> None:
    """Its times were evicted, and the answers were not: a machine that is new here must not find them."""
    async with machine("one") as one:
        key = await kept(one, terms=FAR)
        with closing(redis.client()) as client:
            old = client.get(f"polyroute:answer:{key.digest}")
            await one.invalidate("m")
        await one.close()
        with closing(redis.client()) as client:
            client.flushall()
            assert isinstance(old, bytes)
            client.set(f"polyroute:answer:{key.digest}", old)
    async with machine("new") as new:
        assert await tier_of(new, terms=FAR) == ""
        await kept(new, terms=FAR)
        assert await tier_of(new, terms=FAR) == "redis"


async def test_room_is_reclaimed_in_the_background(machine: Callable[..., Any], redis: RedisServer) -> None:
    async with machine("one") as one:
        for i in range(20):
            await kept(one, b"%d" % i)
        stats = await one.stats()
        assert {tier.name: (tier.entries, tier.hits) for tier in stats.models["m"]} == {
            "memory": (20, 0),
            "disk": (20, 0),
            "redis": (20, 0),
        }
        await one.invalidate("m")
        with closing(redis.client()) as client:
            await until(lambda: not client.keys("polyroute:answer:*"))
        await kept(one)
        assert await tier_of(one, terms=FAR) == "redis"


@pytest.mark.parametrize("value", [b"", b"rubbish", b"\x80\x04\x95cposix\nsystem\n", b"PRA\x02" + b"\xff" * 60])
async def test_what_others_wrote_in_its_place_is_a_miss(
    machine: Callable[..., Any], redis: RedisServer, value: bytes
) -> None:
    async with machine("one") as one:
        key = await kept(one, terms=FAR)
        name = f"polyroute:answer:{key.digest}"
        with closing(redis.client()) as client:
            client.set(name, value)
            assert await tier_of(one, terms=FAR) == ""
            client.delete(name)
            client.lpush(name, "a list")
            assert await tier_of(one, terms=FAR) == ""
            client.set("polyroute:answer:foreign", value)
            client.hset("polyroute:invalidated", "rubbish", "rubbish")
            client.publish("polyroute:invalidations", "rubbish")
        assert (await one.stats()).tiers[2].errors == 1  # what is no string at all is as if it was not there
        assert await one.below[1].tier.held() is not None


@pytest.fixture
async def leases(redis: RedisServer) -> AsyncIterator[Callable[[], Leases]]:
    clients = []

    def _leases() -> Leases:
        clients.append(connect(redis.url))
        return Leases(clients[-1])

    yield _leases
    for client in clients:
        await client.aclose()


KEY = AnswerKey.of(b"a", Moment())


async def test_one_at_a_time_has_a_lease(leases: Callable[[], Leases]) -> None:
    one, two = leases(), leases()
    held = await one.acquire(KEY, 60)
    assert held is not None
    assert held.held
    assert await two.acquire(KEY, 60) is None
    assert await two.acquire(AnswerKey.of(b"b", Moment()), 60) is not None
    assert not await two.freed(KEY, 0.05)
    waiting = asyncio.create_task(two.freed(KEY, WAIT_S))
    await one.release(held)
    assert await waiting
    assert await two.acquire(KEY, 60) is not None
    await one.release(held)  # it is another one's now
    assert await one.acquire(KEY, 60) is None


async def test_a_lease_ends_when_its_holder_is_gone(leases: Callable[[], Leases]) -> None:
    one, two = leases(), leases()
    held = await one.acquire(KEY, 0.2)
    assert held is not None
    assert await two.freed(KEY, WAIT_S)
    assert not await one.renew(held, 60)
    held = await two.acquire(KEY, 0.2)
    assert held is not None
    assert await two.renew(held, 60)
    assert await one.acquire(KEY, 60) is None


async def test_without_redis_everybody_runs_for_themselves(leases: Callable[[], Leases], redis: RedisServer) -> None:
    one = leases()
    held = await one.acquire(KEY, 60)
    assert held is not None
    redis.kill()
    for _ in range(10):
        alone = await one.acquire(KEY, 60)
        assert alone is not None
        assert not alone.held
        assert not await one.renew(held, 60)
        assert not await one.freed(KEY, WAIT_S)
        await one.release(held)
