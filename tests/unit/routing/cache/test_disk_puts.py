"""What waits for the disk is written together, and what goes wrong is told to everyone whom it concerns."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import diskcache
import pytest

from polyroute.routing.cache.disk import BytesDisk
from polyroute.routing.cache.disk_puts import LARGE_BYTES, Put, Puts
from polyroute.routing.cache.disk_tier import DiskTier
from polyroute.routing.cache.terms import Moment
from polyroute.routing.cache.tier import Entry, Label

SMALL = b"x" * 100
LARGE = b"x" * LARGE_BYTES
LABEL = Label("m", "v1", Moment(1))


class Store(diskcache.Cache):  # type: ignore[misc]
    """A store that tells what came together, and begins only while `open` is set."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder), disk=BytesDisk)
        self.asked = threading.Event()
        self.open = threading.Event()
        self.together: list[list[str]] = []
        self.fails: dict[str, Exception] = {}
        self.keeps_not: set[str] = set()

    def work(self, work: Callable[[Any], bool]) -> bool:
        self.asked.set()
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


async def told(puts: Puts, *names: str, entry: bytes = SMALL) -> list[str]:
    """What is told of entries that are put together; empty for each that is kept."""
    errors = await puts.put([Put(name, entry, "tag", None) for name in names])
    return ["" if error is None else str(error) for error in errors]


async def test_small_ones_are_written_together_and_large_ones_alone(puts: Puts, store: Store) -> None:
    store.open.set()
    both = [Put("large", LARGE, "tag", None), *(Put(name, SMALL, "tag", None) for name in "abc")]
    assert await puts.put(both) == [None] * 4
    assert store.together == [["a", "b", "c"], ["large"]]
    assert sorted(store) == ["a", "b", "c", "large"]


async def test_what_fails_together_is_written_one_by_one_and_fails_for_itself_alone(puts: Puts, store: Store) -> None:
    store.fails = {"c": OSError("the disk is full")}
    store.open.set()
    assert await told(puts, "a", "b", "c", "d") == ["", "", "the disk is full", ""]
    assert store.together == [["a", "b", "c"], ["a"], ["b"], ["c"], ["d"]]
    assert await told(puts, "e") == [""]


async def test_what_the_store_does_not_keep_is_written_one_by_one_as_well(puts: Puts, store: Store) -> None:
    store.open.set()
    assert await told(puts, "a", "b", "c", "d") == [""] * 4
    store.keeps_not = {"c"}
    assert await told(puts, "a", "b", "c", "d") == ["", "", "the entry was not stored", ""], "are there already"


async def test_what_is_there_is_replaced_beside_what_is_new(puts: Puts, store: Store) -> None:
    store.open.set()
    assert await told(puts, "a", "b", entry=LARGE) == ["", ""]
    assert await told(puts, "b", "c", "a", "d") == [""] * 4
    assert [store.get(name) for name in "abcd"] == [SMALL] * 4
    assert not list(Path(store.directory).rglob("*.val")), "the files of what was replaced"


async def test_nothing_more_is_written_once_nobody_waits(puts: Puts, store: Store) -> None:
    """A disk that hangs is not asked for each of them, after everybody has given it up."""
    store.fails = {"a": OSError("the disk is full")}
    putting = asyncio.create_task(told(puts, "a", "b", "c"))
    await asyncio.sleep(0)
    async with asyncio.timeout(60):
        while not store.asked.is_set():  # noqa: ASYNC110 - of another thread
            await asyncio.sleep(0.001)
    putting.cancel()
    await asyncio.wait({putting})
    store.open.set()
    assert await told(puts, "d") == [""]
    assert store.together == [["a"], ["d"]]


async def test_a_disk_that_hangs_holds_nothing_of_what_was_given_up(puts: Puts, store: Store) -> None:
    entry = bytes(1000)
    held = sys.getrefcount(entry)
    for i in range(30):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await told(puts, f"{i}", entry=entry)
    gc.collect()
    assert sys.getrefcount(entry) - held < 10, "the first, which hangs, and the frames that the last has left"
    store.open.set()
    assert await told(puts, "d") == [""]


async def test_after_its_end_it_takes_nothing(store: Store) -> None:
    puts = Puts(store.work)
    store.open.set()
    ended = threading.Event()
    puts.close(ended.set).result(60)
    assert ended.is_set()
    with pytest.raises(RuntimeError):
        await told(puts, "a")


async def test_as_many_leave_for_those_that_come_together_as_if_each_came_alone(puts: Puts, store: Store) -> None:
    store.open.set()
    assert await told(puts, *(f"old{i}" for i in range(60))) == [""] * 60
    store.size_limit = 0
    assert await told(puts, "a", "b", "c", "d") == [""] * 4
    left = list(store)
    assert len(left) == 64 - 4 * store.cull_limit
    assert left[-4:] == ["a", "b", "c", "d"], "the oldest leave first"


async def test_no_more_leave_than_have_to(puts: Puts, store: Store) -> None:
    store.open.set()
    for _ in range(5):
        assert not any(await told(puts, *(f"old{store.volume()}-{i}" for i in range(60)), entry=20 * SMALL))
    store.size_limit = store.volume()
    assert not any(await told(puts, *(f"new{i}" for i in range(60)), entry=20 * SMALL))
    left = list(store)
    assert 280 <= len(left) <= 300, "most that there is room for"
    assert left[-60:] == [f"new{i}" for i in range(60)]


async def test_what_is_replaced_does_not_leave_for_what_is_new(puts: Puts, store: Store) -> None:
    store.open.set()
    assert await told(puts, *(f"old{i}" for i in range(60))) == [""] * 60
    store.size_limit = 0
    assert await puts.put([Put(name, b"again", "tag", None) for name in ("a", "old0")]) == [None] * 2
    assert (store.get("old0"), store.get("a")) == (b"again", b"again"), "it was the oldest before"


async def test_of_two_entries_under_one_key_the_last_stays(puts: Puts, store: Store) -> None:
    store.open.set()
    asked = [Put(name, entry, "tag", 60) for name, entry in (("a", b"1"), ("b", b"2"), ("b", b"3"))]
    assert await puts.put(asked) == [None] * 3
    assert [store.get(name, tag=True) for name in "ab"] == [(b"1", "tag"), (b"3", "tag")]
    assert store.get("b", expire_time=True)[1] > 0


async def test_entries_that_were_written_together_are_all_there(tmp_path: Path) -> None:
    tier = DiskTier(tmp_path / "answers", 2**26, get_s=60, put_s=60)
    blobs = {f"{i:064x}": bytes([i % 256]) * (50_000 if i % 50 == 0 else 100) for i in range(200)}
    entries = [Entry(digest, blob, LABEL, None) for digest, blob in blobs.items()]
    for at in range(0, 200, 64):
        assert not any(await tier.put(entries[at : at + 64]))
    assert {digest: await tier.get(digest) for digest in blobs} == blobs
    await tier.close()


async def test_an_entry_that_cannot_be_written_keeps_none_of_the_others_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tier = DiskTier(tmp_path / "answers", 2**26, get_s=60, put_s=60)
    digest = BytesDisk.put

    def refuse(disk: BytesDisk, key: Any) -> tuple[str, bool]:
        if key == "c":
            raise OSError("the disk is full")
        return digest(disk, key)

    monkeypatch.setattr(BytesDisk, "put", refuse)
    errors = await tier.put([Entry(key, SMALL, LABEL, None) for key in "abcd"])
    assert [type(error) for error in errors] == [type(None), type(None), OSError, type(None)]
    assert [await tier.get(key) for key in "abd"] == [SMALL, SMALL, SMALL]
    await tier.close()
