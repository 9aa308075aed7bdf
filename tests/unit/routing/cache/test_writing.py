"""What is kept goes to each tier in goes of its own, and nothing waits for another tier or for nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import cast

import pytest

from polyroute.core.event import Finished, FinishReason, Token
from polyroute.routing.cache import writing
from polyroute.routing.cache.codec import Codec, StoredAnswer
from polyroute.routing.cache.guarded import GuardedTier
from polyroute.routing.cache.invalidations import Invalidations
from polyroute.routing.cache.terms import AnswerKey, Stay, Terms
from polyroute.routing.cache.tier import Entry, Tier
from polyroute.routing.cache.writing import MOST_TOGETHER, PACKED_BYTES, Parcel, Writing
from tests.slot import Slot

TERMS = Terms("m")
DISK, REDIS = Stay("disk"), Stay("redis")


class Shelves:
    """A tier that remembers what came together, and is done with it once it is `open`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.shared = False
        self.location = "here"
        self.get_s = self.put_s = 60.0
        self.open = asyncio.Event()
        self.goes: list[list[str]] = []
        self.deleted: list[str] = []
        self.errors: list[Exception | None] = []

    async def put(self, entries: Sequence[Entry]) -> Sequence[Exception | None]:
        self.goes.append([entry.content.decode() for entry in entries])
        await self.open.wait()
        return self.errors or [None] * len(entries)

    async def delete(self, digest: str) -> int:
        self.deleted.append(digest)
        return 1


@pytest.fixture
def disk() -> Shelves:
    return Shelves("disk")


@pytest.fixture
def redis() -> Shelves:
    return Shelves("redis")


@pytest.fixture
def invalidations() -> Invalidations:
    return Invalidations()


@pytest.fixture
def tiers(disk: Shelves, redis: Shelves) -> dict[str, GuardedTier]:
    return {each.name: GuardedTier(cast(Tier, each)) for each in (disk, redis)}


@pytest.fixture
async def writes(tiers: dict[str, GuardedTier], invalidations: Invalidations, codec: Codec) -> AsyncIterator[Writing]:
    writes = Writing(tiers, invalidations, codec)
    yield writes
    await writes.close(0)


@pytest.fixture
def begin(writes: Writing, invalidations: Invalidations) -> Callable[..., None]:
    def _begin(*names: str, stays: Sequence[Stay] = (DISK,)) -> None:
        for name in names:
            key = AnswerKey.of(name.encode(), invalidations.moment("m"))
            answer = StoredAnswer(key.canonical, "m", "1", (Token(name),), Finished(FinishReason.STOP), 0.0, 0.0)
            writes.begin(Parcel(key, answer, TERMS, 100, 0.0, name.encode()), stays)

    return _begin


async def begun(writes: Writing, tier: Shelves) -> asyncio.Task[None]:
    """Has what is there written, and returns once the first go has begun."""
    flushing = asyncio.create_task(writes.flush())
    async with asyncio.timeout(60):
        while not tier.goes:  # noqa: ASYNC110 - the condition is no event
            await asyncio.sleep(0)
    return flushing


async def test_those_that_come_within_a_moment_or_while_others_are_written_go_together(
    writes: Writing, begin: Callable[..., None], disk: Shelves
) -> None:
    begin("a")
    await asyncio.sleep(0)
    assert not disk.goes  # whoever has the answer may ask for the next one now
    begin("b")
    async with asyncio.timeout(60):
        while not disk.goes:  # noqa: ASYNC110 - nobody hurries them
            await asyncio.sleep(0.001)
    begin("c", "d")
    assert len(writes) == 4
    disk.open.set()
    async with asyncio.timeout(60):
        while len(writes):  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    assert disk.goes == [["a", "b"], ["c", "d"]]


async def test_no_more_than_some_go_together(writes: Writing, begin: Callable[..., None], disk: Shelves) -> None:
    names = [f"{i}" for i in range(MOST_TOGETHER + 1)]
    begin("first", *names)
    disk.open.set()
    await writes.flush()
    assert disk.goes == [["first", *names[: MOST_TOGETHER - 1]], names[MOST_TOGETHER - 1 :]]


async def test_as_many_as_go_together_wait_for_no_more(
    writes: Writing, begin: Callable[..., None], disk: Shelves, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "GATHER_S", 3600.0)
    names = [f"{i}" for i in range(MOST_TOGETHER)]
    begin(*names)
    await asyncio.sleep(0)
    assert disk.goes == [names]


async def test_a_tier_that_hangs_holds_up_no_other(
    writes: Writing, begin: Callable[..., None], disk: Shelves, redis: Shelves
) -> None:
    redis.open.set()
    begin("a", "b", stays=(DISK, REDIS))
    async with asyncio.timeout(60):
        while len(writes) > 2:  # noqa: ASYNC110 - of the disk's
            await asyncio.sleep(0.001)
    assert redis.goes == disk.goes == [["a", "b"]]


async def test_a_flush_gathers_nothing_and_waits_for_nothing_that_is_begun_meanwhile(
    writes: Writing, begin: Callable[..., None], disk: Shelves, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "GATHER_S", 3600.0)
    begin("a", "b")
    flushing = await begun(writes, disk)
    begin("c")
    disk.open.set()
    async with asyncio.timeout(60):
        await flushing
    assert disk.goes == [["a", "b"]]
    async with asyncio.timeout(60):
        await writes.flush()
    assert disk.goes == [["a", "b"], ["c"]]


async def test_what_is_invalidated_while_it_is_written_is_taken_out_again(
    writes: Writing, begin: Callable[..., None], disk: Shelves, invalidations: Invalidations
) -> None:
    begin("a")
    flushing = await begun(writes, disk)
    await invalidations.invalidate("m")
    begin("b")
    disk.open.set()
    await flushing
    await writes.flush()
    assert disk.deleted == [AnswerKey.of(b"a", invalidations.moment("m")).digest]


async def test_what_is_invalidated_before_it_is_written_is_not_written(
    writes: Writing, begin: Callable[..., None], disk: Shelves, invalidations: Invalidations
) -> None:
    """Not even for a moment: a call that comes after would find a single answer that was forgotten."""
    disk.open.set()
    begin("first", "a", "b")
    await invalidations.forget(AnswerKey.of(b"a", invalidations.moment("m")).digest)
    await writes.flush()
    assert [name for go in disk.goes for name in go] == ["first", "b"]
    begin("c")
    await invalidations.invalidate("m")
    await writes.flush()
    assert [name for go in disk.goes for name in go] == ["first", "b"]


async def test_of_a_go_each_that_fails_is_counted_and_the_others_are_kept(
    writes: Writing,
    begin: Callable[..., None],
    disk: Shelves,
    tiers: dict[str, GuardedTier],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(writing, "GATHER_S", 3600.0)
    disk.open.set()
    begin("first")
    await writes.flush()
    begin("a", "b", "c")
    disk.errors = [None, OSError("full"), OSError("full")]
    await writes.flush()
    tier = tiers["disk"]
    assert (tier.counts.stores, tier.counts.errors) == (2, 2)
    assert tier.writes.open
    for _ in range(3):
        disk.errors = [OSError("full")]
        begin("d")
        await writes.flush()
    assert (tier.counts.errors, tier.writes.open) == (5, False)
    begin("e", "f")
    await writes.flush()
    assert tier.counts.skipped == 2


async def test_what_cannot_be_written_in_time_is_given_up(
    writes: Writing, begin: Callable[..., None], disk: Shelves
) -> None:
    begin("a")
    flushing = await begun(writes, disk)
    begin("b")
    async with asyncio.timeout(60):
        await writes.close(0.01)
        await flushing
        await writes.flush()
    assert disk.goes == [["a"]]


async def test_long_answers_are_packed_with_room_for_others_between(invalidations: Invalidations) -> None:
    """A row of them would hold up every call; and what is forgotten meanwhile is not written for a moment even."""
    turn, packed_in, slot = 0, [], Slot("disk")

    class Noting:
        def encode(self, answer: StoredAnswer) -> bytes:
            packed_in.append(turn)
            return answer.key

        def decode(self, blob: bytes) -> StoredAnswer:
            raise NotImplementedError

    async def others() -> None:
        nonlocal turn
        while len(packed_in) < 6:
            turn += 1
            if len(packed_in) == 2:
                await invalidations.forget(keys[1].digest)
            await asyncio.sleep(0)

    writes = Writing({"disk": GuardedTier(slot)}, invalidations, Noting())
    keys = [AnswerKey.of(b"%d" % i, invalidations.moment("m")) for i in range(6)]
    for key in keys:
        answer = StoredAnswer(key.canonical, "m", "1", (), Finished(FinishReason.STOP), 0.0, 0.0)
        writes.begin(Parcel(key, answer, TERMS, PACKED_BYTES // 2), (DISK,))
    calls = asyncio.create_task(others())
    await writes.flush()
    await calls
    assert [packed_in.count(each) for each in dict.fromkeys(packed_in)] == [2, 2, 2]
    assert set(slot.entries) == {key.digest for key in keys} - {keys[1].digest}
    assert slot.asked == 1, "nothing had to be taken out again"
