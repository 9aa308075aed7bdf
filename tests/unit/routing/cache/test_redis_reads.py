"""What is asked of a Redis while others are asking goes together, and everybody gets his own answer in time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

pytest.importorskip("redis")

from polyroute.routing.cache.redis_client import Client
from polyroute.routing.cache.redis_reads import MOST_AT_ONCE, MOST_TOGETHER, Reads


class Redis:
    """Holds what is asked of it until it may answer."""

    def __init__(self) -> None:
        self.may = asyncio.Event()
        self.asked: list[list[str]] = []
        self.error: Exception | None = None
        self.left = 0

    async def mget(self, names: Sequence[str]) -> list[Any]:
        self.asked.append(list(names))
        try:
            await self.may.wait()
        except asyncio.CancelledError:
            self.left += 1
            raise
        if self.error is not None:
            raise self.error
        return [None if name == "none" else name.encode() for name in names]


def reads(redis: Redis, limit_s: float = 60.0) -> Reads:
    return Reads(cast(Client, redis), lambda: limit_s)


async def put(redis: Redis, asks: Reads, names: Sequence[str]) -> list[asyncio.Future[bytes | None]]:
    """Asks for one after the other, each in a question of its own: there must be as many ways free."""
    told = []
    for name in names:
        told.append(asks.get(name))
        while [name] not in redis.asked:  # noqa: ASYNC110 - it is a few turns of the loop
            await asyncio.sleep(0)
    return told


async def test_what_is_asked_for_while_no_way_is_free_goes_together() -> None:
    redis = Redis()
    asks = reads(redis)
    names = [f"{i}" for i in range(MOST_AT_ONCE + MOST_TOGETHER + 3)]
    told = await put(redis, asks, names[:MOST_AT_ONCE])
    told += [asks.get(name) for name in names[MOST_AT_ONCE:]]
    await asyncio.sleep(0)
    assert redis.asked == [[name] for name in names[:MOST_AT_ONCE]]
    redis.may.set()
    assert await asyncio.gather(*told) == [name.encode() for name in names]
    assert redis.asked[MOST_AT_ONCE:] == [names[MOST_AT_ONCE : MOST_AT_ONCE + MOST_TOGETHER], names[-3:]]
    assert await asks.get("none") is None


async def test_an_error_is_that_of_all_who_asked_together_and_of_nobody_after_them() -> None:
    redis = Redis()
    redis.error = OSError("gone")
    asks = reads(redis)
    told = [asks.get(f"{i}") for i in range(5)]  # in one turn of the loop, so they go together
    redis.may.set()
    assert [repr(each) for each in await asyncio.gather(*told, return_exceptions=True)] == ["OSError('gone')"] * 5
    redis.error = None
    assert await asks.get("a") == b"a"


async def test_a_question_has_its_time_and_then_makes_way() -> None:
    redis = Redis()
    asks = reads(redis, 0.01)
    told = [*await put(redis, asks, [f"{i}" for i in range(MOST_AT_ONCE)]), asks.get("last")]
    with pytest.raises(TimeoutError):
        await told[-1]
    assert redis.left == MOST_AT_ONCE + 1
    redis.may.set()
    assert await asks.get("a") == b"a"
    assert all(isinstance(each.exception(), TimeoutError) for each in told)


async def test_who_stops_waiting_holds_up_nobody_and_is_not_asked_for() -> None:
    redis = Redis()
    asks = reads(redis)
    told = await put(redis, asks, [f"{i}" for i in range(MOST_AT_ONCE)])
    told += [asks.get(f"{i}") for i in range(MOST_AT_ONCE, MOST_AT_ONCE + 4)]
    for each in told[:-1]:
        each.cancel()
    redis.may.set()
    assert await told[-1] == f"{MOST_AT_ONCE + 3}".encode()
    assert redis.asked[-1] == [f"{MOST_AT_ONCE + 3}"]


async def test_where_nobody_waits_any_more_nothing_is_asked() -> None:
    redis = Redis()
    asks = reads(redis)
    told = await put(redis, asks, [f"{i}" for i in range(MOST_AT_ONCE)])
    told += [asks.get(f"{i}") for i in range(MOST_TOGETHER + 1)]
    for each in told[MOST_AT_ONCE:-1]:
        each.cancel()
    redis.may.set()
    assert await told[-1] is not None
    assert len(redis.asked) == MOST_AT_ONCE + 1


@pytest.mark.parametrize("begun", [True, False])
async def test_closing_leaves_nobody_waiting(*, begun: bool) -> None:
    """Whether any question was put to the Redis yet or not."""
    redis = Redis()
    asks = reads(redis)
    told = await put(redis, asks, [f"{i}" for i in range(MOST_AT_ONCE if begun else 0)])
    told += [asks.get(f"{i}") for i in range(2)]
    async with asyncio.timeout(60):
        await asks.close()
    outcomes = await asyncio.gather(*told, return_exceptions=True)
    assert [repr(each) for each in outcomes] == ["ConnectionError('the tier is closed')"] * len(told)
    assert redis.left == (MOST_AT_ONCE if begun else 0)
