"""The disk keeps bytes, trusts nothing that it finds, and whatever goes wrong is a miss."""

from __future__ import annotations

import asyncio
import os
import pickle
import shutil
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import diskcache
import pytest
from structlog.testing import capture_logs

from polyroute.routing.cache.disk import BytesDisk, ForeignEntry
from polyroute.routing.cache.disk_tier import DiskTier
from polyroute.routing.cache.guarded import GuardedTier
from polyroute.routing.cache.terms import Moment
from polyroute.routing.cache.tier import Entry, Label

MIB = 1024 * 1024
SIZES = (0, 1, 100, 32_768, 200_000)
"""In the database and in files of their own."""


M = Label("m", "v1", Moment(1))
N = Label("n", "v1", Moment(1))


def folder_of(store: GuardedTier) -> Path:
    assert isinstance(store.tier, DiskTier)
    return store.tier.folder


def rows(store: GuardedTier, statement: str, *arguments: Any) -> list[Any]:
    with closing(sqlite3.connect(folder_of(store) / "cache.db")) as connection, connection:
        return connection.execute(statement, arguments).fetchall()


def opened(folder: Path, max_bytes: int = 64 * MIB, **options: Any) -> GuardedTier:
    return GuardedTier(DiskTier(folder, max_bytes, get_s=60, put_s=60), **options)


async def clear(store: GuardedTier, model: str = "") -> int:
    return await store.reclaim(lambda label, unused_s: model in ("", label.model))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[GuardedTier]:
    """A folder of its own, with limits that no slow machine meets."""
    store = opened(tmp_path / "answers")
    yield store
    await store.close()


@pytest.mark.parametrize("size", SIZES)
async def test_what_is_put_is_got(store: GuardedTier, size: int) -> None:
    blob = os.urandom(size)
    assert await store.put([Entry("k", blob, M, None)])
    assert await store.get("k") == blob
    assert await store.get("other") is None
    assert (store.counts.stores, store.counts.errors) == (1, 0)


async def test_what_comes_together_is_each_its_own(store: GuardedTier) -> None:
    blobs = {f"k{i}": os.urandom(SIZES[i % len(SIZES)]) for i in range(50)}
    assert all(await asyncio.gather(*(store.put([Entry(key, blob, M, None)]) for key, blob in blobs.items())))
    asked = [*reversed(blobs), "other"]
    assert await asyncio.gather(*map(store.get, asked)) == [*reversed(blobs.values()), None]
    assert (store.counts.stores, store.counts.errors) == (50, 0)


async def test_one_spoilt_entry_spoils_none_that_is_read_with_it(store: GuardedTier) -> None:
    for key in "abcd":
        await store.put([Entry(key, key.encode(), M, None)])
    rows(store, "UPDATE Cache SET value = ? WHERE key = 'b'", b"x" * 40)
    assert await asyncio.gather(*map(store.get, "abcd")) == [b"a", None, b"c", b"d"]
    assert store.counts.errors == 1
    assert await store.get("d") == b"d"


async def test_another_process_of_the_future_finds_it_again(store: GuardedTier) -> None:
    await store.put([Entry("k", b"v" * 100_000, M, None)])
    await store.close()
    again = opened(folder_of(store))
    assert await again.get("k") == b"v" * 100_000
    await again.close()


async def test_a_put_replaces(store: GuardedTier) -> None:
    for blob in (b"one", b"two" * 50_000, b"three"):
        await store.put([Entry("k", blob, M, None)])
        assert await store.get("k") == blob
    assert (await store.held()).entries == 1


async def test_what_has_expired_is_gone(store: GuardedTier) -> None:
    await store.put([Entry("k", b"v", M, 0.001)])
    await store.put([Entry("l", b"v", M, 3600)])
    await asyncio.sleep(0.01)
    assert await store.get("k") is None
    assert await store.get("l") == b"v"


async def test_entries_are_removed_one_by_one_by_tag_or_all(store: GuardedTier) -> None:
    for key, label in (("a", M), ("b", M), ("c", N), ("d", N)):
        await store.put([Entry(key, b"v" * 50_000, label, None)])
    assert await store.delete("a") == 1
    assert await store.delete("a") == 0
    assert await clear(store, "m") == 1
    assert await store.get("c") is not None
    assert await clear(store) == 2
    assert (await store.held()).entries == 0
    assert not list(folder_of(store).rglob("*.val"))


@pytest.mark.parametrize("size", [500, 100_000])
async def test_it_tells_how_much_a_model_takes(store: GuardedTier, size: int) -> None:
    """Small entries stand in the database, large ones in files of their own."""
    await store.put([Entry("k", os.urandom(size), M, None)])
    entries, held = (await store.held()).by_model["m"]
    assert entries == 1
    assert size <= held < size + 1000


async def test_it_stays_within_its_size(tmp_path: Path) -> None:
    store = opened(tmp_path, 4 * MIB)
    for i in range(100):
        assert await store.put([Entry(f"k{i}", os.urandom(200_000), M, None)])
    stats = await store.held()
    assert stats.bytes <= 4 * MIB + 400_000
    assert await store.get("k99") is not None
    assert await store.get("k0") is None
    await store.close()


async def test_a_poisoned_pickle_row_runs_nothing(store: GuardedTier, tmp_path: Path) -> None:
    """CVE-2025-69872: diskcache unpickles what a row says is a pickle."""
    mark = tmp_path / "ran"
    evil = pickle.dumps(_Evil(str(mark)))
    await store.put([Entry("k", b"v", M, None)])
    rows(store, "UPDATE Cache SET mode = ?, value = ? WHERE key = 'k'", diskcache.core.MODE_PICKLE, evil)
    assert await store.get("k") is None
    (folder_of(store) / "evil.val").write_bytes(evil)
    rows(store, "UPDATE Cache SET value = NULL, filename = 'evil.val' WHERE key = 'k'")
    assert await store.get("k") is None
    rows(store, "UPDATE Cache SET key = ?, raw = 0", evil)
    assert await clear(store) == 1
    assert store.counts.errors == 2
    assert not mark.exists()


def test_stock_diskcache_would_have_run_it(tmp_path: Path) -> None:
    """The poison of the test above is real."""
    mark = tmp_path / "ran"
    with diskcache.Cache(str(tmp_path / "stock")) as stock:
        stock.set("k", _Evil(str(mark)))
        stock.get("k")
    assert mark.exists()


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "aa/../../secret", "cache.db"])
async def test_a_row_cannot_point_outside(store: GuardedTier, tmp_path: Path, name: str) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    await store.put([Entry("k", b"v" * 100_000, M, None)])
    rows(store, "UPDATE Cache SET filename = ? WHERE key = 'k'", name)
    assert await store.get("k") is None
    assert await clear(store) == 1
    assert secret.exists()
    assert (folder_of(store) / "cache.db").exists()


@pytest.mark.parametrize("damage", [lambda blob: blob[:-1], lambda blob: b"", lambda blob: blob[:-1] + b"x"])
async def test_a_damaged_file_is_a_miss(store: GuardedTier, damage: Any) -> None:
    await store.put([Entry("k", b"v" * 100_000, M, None)])
    (file,) = folder_of(store).rglob("*.val")
    file.write_bytes(damage(file.read_bytes()))
    assert await store.get("k") is None
    assert store.counts.errors == 1
    await store.put([Entry("k", b"new", M, None)])
    assert await store.get("k") == b"new"


async def test_a_lost_file_is_a_miss(store: GuardedTier) -> None:
    await store.put([Entry("k", b"v" * 100_000, M, None)])
    next(folder_of(store).rglob("*.val")).unlink()
    assert await store.get("k") is None


@pytest.mark.parametrize("keep", [0, 50, 4096, 20_000])
async def test_a_truncated_database_is_a_miss_and_no_more(store: GuardedTier, keep: int) -> None:
    for i in range(50):
        await store.put([Entry(f"k{i}", b"v" * 1000, M, None)])
    await store.close()
    for log in folder_of(store).glob("cache.db-*"):
        log.unlink()
    database = folder_of(store) / "cache.db"
    database.write_bytes(database.read_bytes()[:keep])
    again = opened(folder_of(store))
    for i in range(50):
        assert await again.get(f"k{i}") in (None, b"v" * 1000)
    await again.put([Entry("new", b"v", M, None)])
    assert (await again.held()).entries >= 0
    await again.close()


def _foreign_schema(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE Cache (name TEXT)")
        connection.execute("CREATE TABLE Settings (name TEXT)")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda database: database.write_bytes(b"rubbish" * 1000),
        _foreign_schema,
        lambda database: database.mkdir(),
    ],
    ids=["rubbish", "another schema", "a folder"],
)
async def test_a_database_that_is_none_is_begun_anew_and_told_once(
    tmp_path: Path, spoil: Callable[[Path], object]
) -> None:
    folder = tmp_path / "answers"
    folder.mkdir()
    spoil(folder / "cache.db")
    store = opened(folder)
    with capture_logs() as logs:
        await store.start()
        for _ in range(20):
            assert await store.get("k") is None
        await store.put([Entry("k", b"v", M, None)])
        assert await store.get("k") in (b"v", None)
    assert len([entry for entry in logs if entry["event"] == "cache.failed"]) <= 1
    if not (folder / "cache.db").is_dir():
        assert await store.get("k") == b"v"
        assert [entry["event"] for entry in logs if "anew" in entry["event"]] == ["cache.begun_anew"]
    assert not list(tmp_path.glob("*damaged*"))
    await store.close()


async def test_what_it_has_stored_it_never_says_that_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where all keys were read again after the put began, and before it was written."""
    tier = DiskTier(tmp_path / "answers", 64 * MIB, get_s=60, put_s=60)
    put = tier._puts.put

    async def put_late(puts: Any) -> Any:
        assert await tier._stock.catch_up()
        return await put(puts)

    monkeypatch.setattr(tier._puts, "put", put_late)
    await tier.put([Entry("k", b"v", M, None)])
    monkeypatch.setattr(tier._stock, "_until", float("inf"))
    assert tier.lacks("another")
    assert not tier.lacks("k")
    await tier.close()


async def test_one_that_is_spoilt_while_it_is_open_is_begun_anew_by_one_and_followed_by_others(tmp_path: Path) -> None:
    folder = tmp_path / "answers"
    one, two = opened(folder), opened(folder)
    for i in range(100):
        await one.put([Entry(f"k{i}", b"v" * 2000, M, None)])
    assert await two.get("k1") is not None
    database = folder / "cache.db"
    with database.open("r+b") as file:
        file.seek(4096)
        file.write(b"x" * (database.stat().st_size - 4096))
    (folder / "cache.db-wal").write_bytes(b"")
    for i in range(100):
        for store in (one, two):
            assert await store.get(f"k{i}") in (None, b"v" * 2000)
    assert await one.put([Entry("new", b"v", M, None)])
    async with asyncio.timeout(60):
        # It has just looked for so much that it may be a little behind.
        while await two.get("new") != b"v":  # noqa: ASYNC110 - the condition is no event
            await asyncio.sleep(0.01)
    await one.close()
    await two.close()


async def test_a_folder_that_cannot_be_opened_is_tried_again_later(tmp_path: Path) -> None:
    now = 0.0
    (tmp_path / "taken").write_text("a file, where a folder should be")
    store = opened(tmp_path / "taken" / "answers", clock=lambda: now)
    for _ in range(3):
        assert not await store.put([Entry("k", b"v", M, None)])
    (tmp_path / "taken").unlink()
    assert not await store.put([Entry("k", b"v", M, None)])
    now = 60.0
    assert await store.put([Entry("k", b"v", M, None)])
    assert await store.get("k") == b"v"
    await store.close()


async def test_a_folder_that_vanishes_is_a_miss(store: GuardedTier) -> None:
    await store.put([Entry("k", b"v" * 100_000, M, None)])
    shutil.rmtree(folder_of(store))
    assert await store.get("k") is None
    assert await store.put([Entry("l", b"v" * 100_000, M, None)])
    assert await store.get("l") == b"v" * 100_000


async def test_a_disk_that_hangs_is_a_miss_and_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(tmp_path)
    released = threading.Event()
    await store.start()
    store.tier.get_s = store.tier.put_s = 0.02
    monkeypatch.setattr(BytesDisk, "put", lambda self, key: (released.wait(60), (key, True))[1])
    try:
        assert await asyncio.gather(*(store.get(f"k{i}") for i in range(300))) == [None] * 300
        assert not await store.put([Entry("k", b"v", M, None)])
        assert store.counts.errors + store.counts.skipped == 301
        assert not store.reads.open
    finally:
        released.set()
        await store.close()


async def test_a_closed_store_misses(store: GuardedTier) -> None:
    await store.put([Entry("k", b"v", M, None)])
    await store.close()
    assert await store.get("k") is None
    assert not await store.put([Entry("k", b"v", M, None)])
    await store.close()


@pytest.mark.parametrize("value", ["text", 1, None, {"a": 1}, bytearray(b"x")])
def test_only_bytes_are_stored(tmp_path: Path, value: object) -> None:
    with pytest.raises(TypeError):
        BytesDisk(str(tmp_path), min_file_size=10).store(value, False)


@pytest.mark.parametrize("key", [b"bytes", 1, ("a", "b"), None])
def test_only_text_is_a_key(tmp_path: Path, key: object) -> None:
    disk = BytesDisk(str(tmp_path), min_file_size=10)
    with pytest.raises(TypeError):
        disk.put(key)
    with pytest.raises(ForeignEntry):
        disk.get(key, True)
    with pytest.raises(ForeignEntry):
        disk.get("text", False)


class _Evil:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.mark,)


async def test_another_size_holds_at_once_and_what_is_too_much_leaves(store: GuardedTier) -> None:
    for i in range(100):
        await store.put([Entry(f"k{i}", os.urandom(50_000), M, None)])
    assert (await store.held()).entries == 100
    store.resize(MIB)
    for i in range(20):
        await store.put([Entry(f"l{i}", os.urandom(50_000), M, None)])
    held = await store.held()
    assert (store.max_bytes, held.bytes < 2 * MIB) == (MIB, True)
    assert await store.get("l19") is not None


async def test_no_file_is_mapped_that_someone_may_cut(store: GuardedTier) -> None:
    """SQLite maps the index of a write-ahead log: a process that reads beyond its end is killed."""
    await store.put([Entry("k", b"v", M, None)])
    assert await store.get("k") == b"v"
    assert sorted(path.suffix for path in folder_of(store).iterdir() if path.is_file()) == [".db", ".db-journal"]
    for path in folder_of(store).iterdir():
        os.truncate(path, 0)
    assert await store.get("k") is None
    await store.get("k")
    assert await store.put([Entry("k", b"w", M, None)])
    assert await store.get("k") == b"w"


async def test_a_connection_holds_little_of_the_database_in_memory(tmp_path: Path) -> None:
    """SQLite keeps as much for each, whatever the settings of an earlier version say."""
    before = opened(tmp_path / "answers")
    await before.start()
    await before.close()
    rows(before, "UPDATE Settings SET value = 8192 WHERE key = 'sqlite_cache_size'")
    after = opened(tmp_path / "answers")
    await after.start()
    assert isinstance(after.tier, DiskTier)
    ((pages,),) = await after.tier._run(lambda cache: cache._sql("PRAGMA cache_size").fetchall())
    assert pages == 1024
    await after.close()


@pytest.mark.parametrize(
    "row",
    [("disk_compress_level", 1), ("sqlite_no_such", "1; 2"), ("get", 1), ("_sql", 1)],
    ids=lambda row: row[0],
)
async def test_a_database_of_other_settings_is_begun_anew(tmp_path: Path, row: tuple[str, Any]) -> None:
    """As another program's store is, or one that someone has tampered with."""
    before = opened(tmp_path / "answers")
    await before.put([Entry("k", b"v", M, None)])
    await before.close()
    rows(before, "INSERT INTO Settings VALUES (?, ?)", *row)
    after = opened(tmp_path / "answers")
    with capture_logs() as logs:
        assert await after.get("k") is None
        assert await after.put([Entry("k", b"w", M, None)])
        assert await after.get("k") == b"w"
    assert [entry["event"] for entry in logs if "anew" in entry["event"]] == ["cache.begun_anew"]
    await after.close()


async def test_settings_that_were_changed_are_not_followed(tmp_path: Path) -> None:
    before = opened(tmp_path / "answers")
    await before.put([Entry("k", b"v", M, None)])
    await before.close()
    rows(before, "UPDATE Settings SET value = 'x' WHERE key IN ('cull_limit', 'size_limit', 'eviction_policy')")
    after = opened(tmp_path / "answers")
    assert await after.get("k") == b"v"
    assert await after.put([Entry("k", b"w", M, None)])
    await after.close()


async def test_only_the_owner_reads_what_is_kept(store: GuardedTier) -> None:
    await store.put([Entry("k", b"v", M, None)])
    assert folder_of(store).stat().st_mode & 0o777 == 0o700
