"""What waits for the disk is written together, and what goes wrong is told to everyone whom it concerns."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import diskcache
import pytest

from polyroute.routing.cache.disk import BytesDisk
from polyroute.routing.cache.disk_puts import LARGE_BYTES, MOST_TOGETHER, Put, Puts
from polyroute.routing.cache.disk_tier import DiskTier
from polyroute.routing.cache.terms import Moment
from polyroute.routing.cache.tier import Label

SMALL = b"x" * 100
LARGE = b"x" * LARGE_BYTES


class Store(diskcache.Cache):  # type: ignore[misc]
    """A store that tells what came together, and begins only while `open` is set."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder), disk=BytesDisk)
        self.open = threading.Event()
        self.together: list[list[str]] = []
        self.fails: dict[str, Exception] = {}
        self.keeps_not: set[str] = set()

    def work(self, work: Callable[[Any], bool]) -> bool:
        assert self.open.wait(60)
        self.together.append([])
        return work(self)

    @property
    def disk(self) -> Any:
        return self

    def put(self, digest: str) -> tuple[str, bool]:
        return digest, True

    def store(self, entry: bytes, read: bool, *, key: str) -> Any:
        self._comes(key)
        return super().disk.store(entry, read, key=key)

    def set(self, digest: str, *entry: Any, **how: Any) -> bool:
        self._comes(digest)
        return bool(super().set(digest, *entry, **how)) and digest not in self.keeps_not

    def _comes(self, digest: str) -> None:
        self.together[-1].append(digest)
        if digest in self.fails:
            raise self.fails[digest]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store") as store:
        yield store


@pytest.fixture
async def puts(store: Store) -> AsyncIterator[Puts]:
    puts = Puts(store.work)
    yield puts
    store.open.set()
    puts.close(lambda: None)


def asked(puts: Puts, *names: str, entry: bytes = SMALL) -> list[asyncio.Future[bool]]:
    return [puts.put(Put(name, entry, "tag", None)) for name in names]


async def test_the_first_goes_at_once_and_those_that_come_meanwhile_go_together(puts: Puts, store: Store) -> None:
    waiting = asked(puts, "a", "b", "c")
    assert len(puts) == 3
    store.open.set()
    assert await asyncio.gather(*waiting) == [True, True, True]
    assert store.together == [["a"], ["b", "c"]]
    assert len(puts) == 0


async def test_no_more_than_some_go_together_and_large_ones_go_alone(puts: Puts, store: Store) -> None:
    names = [f"{i}" for i in range(MOST_TOGETHER + 1)]
    waiting = [*asked(puts, "first", *names), *asked(puts, "large", entry=LARGE), *asked(puts, "y", "z")]
    store.open.set()
    await asyncio.gather(*waiting)
    assert store.together == [["first"], names[:MOST_TOGETHER], names[MOST_TOGETHER:], ["large"], ["y", "z"]]


async def test_what_fails_together_is_written_one_by_one_and_fails_for_itself_alone(puts: Puts, store: Store) -> None:
    waiting = asked(puts, "a", "b", "c", "d")
    store.fails = {"c": OSError("the disk is full")}
    store.open.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [result is True or str(result) for result in results] == [True, True, "the disk is full", True]
    assert store.together == [["a"], ["b", "c"], ["b"], ["c"], ["d"]]
    assert len(puts) == 0
    assert await asyncio.gather(*asked(puts, "e")) == [True]


async def test_what_the_store_does_not_keep_is_written_one_by_one_as_well(puts: Puts, store: Store) -> None:
    store.open.set()
    assert all(await asyncio.gather(*asked(puts, "a", "b", "c", "d")))
    store.keeps_not = {"c"}
    again = asked(puts, "a", "b", "c", "d")
    assert await asyncio.gather(*again) == [True, True, False, True], "of those that are there already"


async def test_of_what_has_failed_together_nothing_is_written_that_nobody_waits_for(puts: Puts, store: Store) -> None:
    """A disk that hangs is not asked for each of them again, after everybody has given it up."""
    first, second, third, fourth = asked(puts, "a", "b", "c", "d")
    store.fails = {"b": OSError("the disk is full")}
    third.cancel()
    store.open.set()
    results = await asyncio.gather(first, second, fourth, return_exceptions=True)
    assert [type(result) for result in results] == [bool, OSError, bool]
    assert store.together == [["a"], ["b"], ["b"], ["d"]]


async def test_who_stops_waiting_stops_nothing(puts: Puts, store: Store) -> None:
    first, second, third = asked(puts, "a", "b", "c")
    second.cancel()
    store.open.set()
    assert await asyncio.gather(first, third) == [True, True]
    assert store.together == [["a"], ["b", "c"]]


async def test_after_its_end_it_takes_nothing(store: Store) -> None:
    puts = Puts(store.work)
    store.open.set()
    ended = threading.Event()
    puts.close(ended.set).result(60)
    assert ended.is_set()
    with pytest.raises(RuntimeError):
        await asked(puts, "a")[0]


async def test_as_many_leave_for_those_that_come_together_as_if_each_came_alone(puts: Puts, store: Store) -> None:
    store.open.set()
    assert all(await asyncio.gather(*asked(puts, *(f"old{i}" for i in range(60)))))
    store.size_limit = 0
    assert all(await asyncio.gather(*asked(puts, "a", "b", "c", "d")))
    left = list(store)
    assert len(left) == 64 - 4 * store.cull_limit
    assert left[-4:] == ["a", "b", "c", "d"], "the oldest leave first"


async def test_of_two_entries_under_one_key_the_last_stays(puts: Puts, store: Store) -> None:
    waiting = [puts.put(Put(name, entry, "tag", 60)) for name, entry in (("a", b"1"), ("b", b"2"), ("b", b"3"))]
    store.open.set()
    assert await asyncio.gather(*waiting) == [True, True, True]
    assert [store.get(name, tag=True) for name in "ab"] == [(b"1", "tag"), (b"3", "tag")]
    assert store.get("b", expire_time=True)[1] > 0


async def test_entries_that_were_written_together_are_all_there(tmp_path: Path) -> None:
    tier = DiskTier(tmp_path / "answers", 2**26, get_s=60, put_s=60)
    label = Label("m", "v1", Moment(1))
    entries = {f"{i:064x}": bytes([i % 256]) * (50_000 if i % 50 == 0 else 100) for i in range(200)}
    await asyncio.gather(*(tier.put(digest, entry, label, None) for digest, entry in entries.items()))
    assert {digest: await tier.get(digest) for digest in entries} == entries
    await tier.close()


async def test_an_entry_that_cannot_be_written_keeps_none_of_the_others_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tier = DiskTier(tmp_path / "answers", 2**26, get_s=60, put_s=60)
    label = Label("m", "v1", Moment(1))
    digest = BytesDisk.put

    def refuse(disk: BytesDisk, key: Any) -> tuple[str, bool]:
        if key == "c":
            raise OSError("the disk is full")
        return digest(disk, key)

    monkeypatch.setattr(BytesDisk, "put", refuse)
    results = await asyncio.gather(*(tier.put(key, SMALL, label, None) for key in "abcd"), return_exceptions=True)
    assert [type(result) for result in results] == [type(None), type(None), OSError, type(None)]
    assert [await tier.get(key) for key in "abd"] == [SMALL, SMALL, SMALL]
    await tier.close()
