"""What is said not to be in a store is not there, whoever stores and removes."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import diskcache
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polyroute.routing.cache.disk import BytesDisk
from polyroute.routing.cache.stock import BUSY, COUNTED_S, TRUSTED_S, Stock

T = TypeVar("T")


class Store:
    """A store on disk, read by the stock and written to as another process would."""

    def __init__(self, folder: Path) -> None:
        self.cache = diskcache.Cache(str(folder), disk=BytesDisk, eviction_policy="least-recently-stored")
        self.reads = 0
        self.error: Exception | None = None
        self.hangs = False
        self.fails_at = 0

    async def read(self, work: Callable[[diskcache.Cache], T]) -> T:
        self.reads += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.reads == self.fails_at:
            raise sqlite3.OperationalError("database is locked")
        if self.error is not None:
            raise self.error
        return work(self.cache)

    def put(self, *keys: str) -> None:
        with self.cache.transact():
            for key in keys:
                self.cache.set(key, b"v")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "store")
    yield store
    store.cache.close()


@pytest.fixture
async def stock(store: Store) -> AsyncIterator[Stock]:
    stock = Stock(store.read)
    yield stock
    stock.close()


async def until_lacks(stock: Stock, digest: str) -> None:
    """Looks until it is said so."""
    async with asyncio.timeout(60):
        while not stock.lacks(digest):  # noqa: ASYNC110 - the condition is no event
            await asyncio.sleep(0.001)


async def until_known(stock: Stock, digest: str) -> None:
    """Looks until it is not denied, where others are."""
    async with asyncio.timeout(60):
        while not stock.lacks("none of that name") or stock.lacks(digest):  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def test_who_looks_seldom_has_it_asked_each_time(stock: Stock, store: Store) -> None:
    for _ in range(BUSY - 1):
        assert not stock.lacks("k")
    await asyncio.sleep(0)
    assert store.reads == 0


async def test_as_many_looks_over_a_longer_time_are_seldom_too(store: Store) -> None:
    now = 0.0
    stock = Stock(store.read, clock=lambda: now)
    for _ in range(10 * BUSY):
        assert not stock.lacks("k")
        now += 1.01 * COUNTED_S / (BUSY - 1)
    await asyncio.sleep(0)
    assert store.reads == 0


async def test_who_looks_often_is_told_what_is_not_there(stock: Stock, store: Store) -> None:
    keys = [f"k{i}" for i in range(1500)]
    store.put(*keys)
    await until_lacks(stock, "other")
    assert not any(map(stock.lacks, keys))
    told = sum(stock.lacks(f"other{i}") for i in range(1000))
    assert told > 900


async def test_what_this_process_stores_is_known_at_once(stock: Stock) -> None:
    await until_lacks(stock, "k")
    stock.add("k")
    assert not stock.lacks("k")


async def test_what_others_store_is_known_soon(stock: Stock, store: Store) -> None:
    await until_lacks(stock, "k")
    store.put("k")
    await until_known(stock, "k")


async def test_what_others_store_in_the_place_of_what_has_left_is_known_too(stock: Stock, store: Store) -> None:
    """A row may get the number of one that was the last, and has been removed."""
    store.put("a", "b")
    await until_lacks(stock, "k")
    store.cache.delete("b")
    store.put("k")
    await until_known(stock, "k")
    store.cache.clear()
    store.put("l")
    await until_known(stock, "l")


async def test_no_more_is_read_than_what_is_new(stock: Stock, store: Store) -> None:
    store.put(*(f"k{i}" for i in range(1500)))
    assert await stock.catch_up()
    before = store.reads
    assert await stock.catch_up()
    store.put("l")
    assert await stock.catch_up()
    assert await stock.catch_up()
    assert store.reads == before + 3


async def test_all_that_is_new_is_read_at_once_however_much_it_is(stock: Stock, store: Store) -> None:
    store.put("k")
    assert await stock.catch_up()
    before = store.reads
    store.put(*(f"k{i}" for i in range(1100)))
    assert await stock.catch_up()
    assert store.reads == before + 3, "two pages and a part of one"
    assert await stock.catch_up()
    assert store.reads == before + 4, "nothing is left"


async def test_nothing_is_said_for_longer_than_it_is_known(store: Store) -> None:
    now = 0.0
    stock = Stock(store.read, clock=lambda: now)
    await until_lacks(stock, "k")
    store.hangs = True
    now = TRUSTED_S - 0.001
    assert stock.lacks("k")
    now = TRUSTED_S
    assert not stock.lacks("k")
    stock.close()


@pytest.mark.parametrize("error", [sqlite3.OperationalError("database is locked"), RuntimeError("closed")])
async def test_a_store_that_fails_is_asked_and_followed_again_once_it_works(
    stock: Stock, store: Store, error: Exception
) -> None:
    store.error = error
    async with asyncio.timeout(60):
        while store.reads < 2:
            assert not stock.lacks("k")
            await asyncio.sleep(0.001)
    store.error = None
    await until_lacks(stock, "k")


async def test_what_was_read_in_part_denies_nothing(stock: Stock, store: Store) -> None:
    """The count, and one page of three; then the store fails for once."""
    keys = [f"k{i}" for i in range(1500)]
    store.put(*keys)
    store.fails_at = 3
    await until_lacks(stock, "other")
    assert store.reads > 3
    assert not any(map(stock.lacks, keys))


async def test_once_closed_it_says_nothing(stock: Stock) -> None:
    await until_lacks(stock, "k")
    stock.close()
    await asyncio.sleep(0)
    assert not stock.lacks("k")


STEPS = st.lists(st.tuples(st.sampled_from(["put", "again", "delete", "clear", "catch up"]), st.integers(0, 100)))


@given(STEPS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
async def test_whatever_others_do_nothing_that_is_there_is_denied(store: Store, steps: list[tuple[str, int]]) -> None:
    """But for what came while the last row left and came back in its old place, which is known in ten minutes."""
    store.cache.clear()
    stock = Stock(store.read)
    there: list[str] = []
    for number, (step, which) in enumerate([*steps, ("catch up", 0)]):
        if step == "put":
            store.put(f"k{number}")
            there.append(f"k{number}")
        elif step == "again" and there:
            store.put(there[which % len(there)])
        elif step == "delete" and there:
            store.cache.delete(there.pop(which % len(there)))
        elif step == "clear":
            store.cache.clear()
            there.clear()
        elif step == "catch up":
            while not await stock.catch_up():
                pass
            assert stock._may is not None
            assert all(each in stock._may for each in there)
