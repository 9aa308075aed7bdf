"""The tiers together: the nearest gives, those above are filled, and nothing that is wrong with one fails a call."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from polyroute.core.event import Finished, FinishReason, Token
from polyroute.routing.cache import writing
from polyroute.routing.cache.answers import Answers
from polyroute.routing.cache.codec import Codec, StoredAnswer, size_of
from polyroute.routing.cache.disk_tier import DiskTier
from polyroute.routing.cache.guarded import GuardedTier
from polyroute.routing.cache.invalidation_log import InvalidationLog
from polyroute.routing.cache.invalidations import Invalidations
from polyroute.routing.cache.memory_tier import MemoryTier, footprint
from polyroute.routing.cache.terms import MAX_ANSWER_BYTES, AnswerKey, Stay, Terms
from polyroute.routing.cache.tier import BadEntry, Label
from tests.slot import Slot

MIB = 1024 * 1024
TERMS = Terms("m")
DISK_ONLY = Terms("m", None, None, (Stay("disk"),))


class Wall:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
def near() -> Slot:
    return Slot("disk")


@pytest.fixture
def far() -> Slot:
    return Slot("redis")


@pytest.fixture
async def answers(codec: Codec, wall: Wall, near: Slot, far: Slot) -> AsyncIterator[Answers]:
    answers = Answers(MemoryTier(MIB), [GuardedTier(near), GuardedTier(far)], Invalidations(), codec, wall=wall)
    yield answers
    await answers.close()


def answer_to(key: AnswerKey, wall: Wall, text: str = "hello", version: str = "v1") -> StoredAnswer:
    return StoredAnswer(key.canonical, "m", version, (Token(text),), Finished(FinishReason.STOP), wall.now, 0.5)


async def kept(answers: Answers, wall: Wall, text: bytes = b"a", terms: Terms = TERMS, **more: Any) -> AnswerKey:
    """An answer that is in every tier."""
    key = answers.key("m", text)
    assert answers.keep(key, answer_to(key, wall, **more), terms)
    await answers.flush()
    return key


async def tier_of(answers: Answers, key: AnswerKey, terms: Terms = TERMS) -> str:
    found = await answers.find(key, terms)
    await answers.flush()
    return "" if found is None else found.tier


async def test_what_is_kept_is_found_at_once_and_is_the_same_object(answers: Answers, wall: Wall, near: Slot) -> None:
    near.gate = asyncio.Event()
    key = answers.key("m", b"a")
    answer = answer_to(key, wall)
    assert answers.keep(key, answer, TERMS)
    found = answers.at_hand(key, TERMS)
    assert found is not None
    assert (found.answer is answer, found.tier) == (True, "memory")
    near.gate.set()


async def test_the_nearest_tier_gives_and_fills_those_above(
    answers: Answers, wall: Wall, near: Slot, far: Slot
) -> None:
    key = await kept(answers, wall)
    assert set(near.entries) == set(far.entries) == {key.digest}
    assert await tier_of(answers, key) == "memory"
    answers.memory.forget(key.digest)
    assert await tier_of(answers, key) == "disk"
    assert await tier_of(answers, key) == "memory"
    answers.memory.forget(key.digest)
    near.entries.clear()
    assert await tier_of(answers, key) == "redis"
    assert await tier_of(answers, key) == "memory"
    assert near.entries[key.digest] == far.entries[key.digest]


async def test_what_was_compressed_counts_in_memory_by_what_it_takes_there(
    answers: Answers, wall: Wall, near: Slot
) -> None:
    key = answers.key("m", b"a")
    assert answers.keep(key, answer_to(key, wall, "x" * 100_000), TERMS)
    await answers.flush()
    assert len(near.entries[key.digest][0]) < 1000
    size = answers.memory.bytes
    answers.memory.forget(key.digest)
    assert await tier_of(answers, key) == "disk"
    assert answers.memory.bytes == pytest.approx(size, rel=0.01)
    assert size > 200_000, "once as text and once as it is written"


async def test_a_model_uses_the_tiers_that_its_terms_name(answers: Answers, wall: Wall, near: Slot, far: Slot) -> None:
    key = await kept(answers, wall, terms=Terms("m", None, None, (Stay("redis"),)))
    assert (len(answers.memory), len(near.entries), len(far.entries)) == (0, 0, 1)
    assert await tier_of(answers, key, DISK_ONLY) == ""
    assert answers.at_hand(key, DISK_ONLY) is None


async def test_each_tier_keeps_it_for_its_own_time_and_never_beyond_the_answers_age(
    answers: Answers, wall: Wall, near: Slot, far: Slot
) -> None:
    terms = Terms("m", 1000.0, Stay("memory", 10), (Stay("disk", 100), Stay("redis")))
    key = await kept(answers, wall, terms=terms)
    disk_s, redis_s = near.entries[key.digest][2], far.entries[key.digest][2]
    assert disk_s is not None
    assert redis_s is not None
    assert 90 <= disk_s <= 100
    assert 900 <= redis_s <= 1000
    wall.now += 950
    answers.memory.forget(key.digest)
    near.entries.clear()
    if redis_s > 950:
        assert await tier_of(answers, key, terms) == "redis"
        filled_s = near.entries[key.digest][2]
        assert filled_s is not None
        assert filled_s <= 50
    wall.now += 51
    assert await tier_of(answers, key, terms) == ""


async def test_a_bound_that_was_lowered_holds_for_what_is_kept_already(answers: Answers, wall: Wall) -> None:
    key = await kept(answers, wall)
    wall.now += 60
    assert await tier_of(answers, key, Terms("m", 59.0)) == ""
    assert await tier_of(answers, key) == "memory"


async def test_an_entry_of_another_request_is_never_given(answers: Answers, wall: Wall, near: Slot) -> None:
    """Were two requests to share the short key, the full one would tell them apart."""
    key = await kept(answers, wall)
    other = replace(key, canonical=b"other")
    assert await tier_of(answers, other) == ""


@pytest.mark.parametrize("entry", [b"", b"rubbish" * 20, b"PRA\x02" + b"\0" * 60])
async def test_foreign_entries_are_misses_and_are_counted(
    answers: Answers, wall: Wall, near: Slot, entry: bytes
) -> None:
    key = await kept(answers, wall, terms=DISK_ONLY)
    _, label, stay_s = near.entries[key.digest]
    near.entries[key.digest] = (entry, label, stay_s)
    assert await tier_of(answers, key, DISK_ONLY) == ""
    assert answers.below[0].counts.errors == 1
    assert answers.below[0].reads.open
    await kept(answers, wall, terms=DISK_ONLY)
    assert await tier_of(answers, key, DISK_ONLY) == "disk"


@pytest.mark.parametrize("error", [OSError("no space"), RuntimeError("bug"), BadEntry("cut"), TimeoutError()])
async def test_a_tier_that_fails_is_passed_over(
    answers: Answers, wall: Wall, near: Slot, far: Slot, error: Exception
) -> None:
    key = await kept(answers, wall)
    near.error = error
    for _ in range(10):
        answers.memory.forget(key.digest)
        assert await tier_of(answers, key) == "redis"
    assert await kept(answers, wall, b"b")
    assert await answers.forget(key.digest) == 1
    assert await answers.invalidate() == 1
    assert [tier.name for tier in (await answers.stats()).tiers] == ["memory", "disk", "redis"]


async def test_a_tier_that_is_down_is_asked_seldom(answers: Answers, wall: Wall, near: Slot, far: Slot) -> None:
    near.error = OSError("down")
    for i in range(100):
        assert await answers.find(answers.key("m", b"%d" % i), TERMS) is None
    assert near.asked == 3
    assert far.asked == 100
    counts = answers.below[0].counts
    assert (counts.errors, counts.skipped) == (3, 97)
    stats = (await answers.stats()).tiers[1]
    assert "left out" in stats.trouble


async def test_a_tier_that_hangs_costs_its_limit_and_no_more(answers: Answers, wall: Wall, near: Slot) -> None:
    key = await kept(answers, wall)
    near.gate, near.get_s = asyncio.Event(), 0.01
    for _ in range(10):
        answers.memory.forget(key.digest)
        assert await tier_of(answers, key, Terms("m", None, Stay("memory"), (Stay("disk"),))) == ""
    assert near.asked == 1 + 1 + 3 - 1  # the put before, and three that found out
    near.gate.set()


@pytest.mark.parametrize("text", ["x" * (MAX_ANSWER_BYTES + 1), "ä" * (MAX_ANSWER_BYTES // 2), "half a pair: \ud83d"])
async def test_what_is_too_large_or_is_no_text_is_refused(answers: Answers, wall: Wall, text: str) -> None:
    key = answers.key("m", b"a")
    assert not answers.keep(key, answer_to(key, wall, text), TERMS)
    assert await tier_of(answers, key) == ""
    await answers.flush()
    assert await tier_of(answers, key) == ""


async def test_what_cannot_be_encoded_is_kept_in_memory_alone_and_keeps_no_other_out(
    answers: Answers, wall: Wall, near: Slot, monkeypatch: pytest.MonkeyPatch, codec: Codec
) -> None:
    encode = codec.encode

    def refuse(answer: StoredAnswer) -> bytes:
        if answer.key == b"b":
            raise ValueError("cannot")
        return encode(answer)

    monkeypatch.setattr(codec, "encode", refuse)
    keys = [answers.key("m", text) for text in (b"a", b"b", b"c")]
    assert all(answers.keep(key, answer_to(key, wall), TERMS) for key in keys)
    await answers.flush()
    assert set(near.entries) == {keys[0].digest, keys[2].digest}
    assert [await tier_of(answers, key) for key in keys] == ["memory"] * 3
    assert (answers.below[0].counts.skipped, answers.below[0].counts.errors) == (1, 0)


async def test_what_turns_out_too_large_as_it_is_encoded_is_not_written(
    answers: Answers, wall: Wall, near: Slot, monkeypatch: pytest.MonkeyPatch, codec: Codec
) -> None:
    monkeypatch.setattr(codec, "encode", lambda answer: bytes(MAX_ANSWER_BYTES + 1))
    key = answers.key("m", b"a")
    assert answers.keep(key, answer_to(key, wall), TERMS)
    await answers.flush()
    assert not near.entries


async def test_an_answer_is_encoded_once_for_all_tiers_and_not_for_memory_alone(
    answers: Answers, wall: Wall, near: Slot, far: Slot, monkeypatch: pytest.MonkeyPatch, codec: Codec
) -> None:
    encode, encoded = codec.encode, []

    def note(answer: StoredAnswer) -> bytes:
        encoded.append(answer.key)
        return encode(answer)

    monkeypatch.setattr(codec, "encode", note)
    await kept(answers, wall, b"a", terms=Terms("m", below=()))
    assert encoded == []
    await kept(answers, wall, b"b")
    assert encoded == [b"b"]
    assert near.entries == far.entries


async def test_too_many_that_are_being_written_are_kept_in_memory_alone(
    answers: Answers, wall: Wall, near: Slot, far: Slot
) -> None:
    near.gate = asyncio.Event()
    for i in range(600):
        key = answers.key("m", b"%d" % i)
        assert answers.keep(key, answer_to(key, wall), TERMS)
        assert answers.at_hand(key, TERMS) is not None
    near.gate.set()
    await answers.flush()
    assert len(near.entries) == 512
    assert answers.below[0].counts.skipped == 88


async def test_what_is_being_written_is_bounded_by_the_memory_that_it_takes(
    answers: Answers, wall: Wall, near: Slot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is there as objects until it is written, and a short token takes far more as one than as bytes."""
    monkeypatch.setattr(writing, "MOST_BYTES", 100_000)
    near.gate = asyncio.Event()
    for i in range(20):
        key = answers.key("m", b"%d" % i)
        answer = replace(answer_to(key, wall), tokens=(Token("x"),) * 200)
        assert size_of(answer) < 100_000 / 20
        assert answers.keep(key, answer, DISK_ONLY)
    near.gate.set()
    await answers.flush()
    assert 1 < len(near.entries) < 8
    assert answers.below[0].counts.skipped == 20 - len(near.entries)
    assert len(near.entries) * footprint(answer, size_of(answer)) <= 100_000
    key = answers.key("m", b"large")
    assert answers.keep(key, answer_to(key, wall, os.urandom(100_000).hex()), DISK_ONLY)
    await answers.flush()
    assert key.digest in near.entries, "nothing else is on its way"


async def test_an_invalidated_model_is_out_of_reach_everywhere_and_its_room_comes_back(
    answers: Answers, wall: Wall, near: Slot, far: Slot
) -> None:
    for text in (b"a", b"b"):
        await kept(answers, wall, text)
    assert await answers.invalidate("other") == 0
    assert await tier_of(answers, answers.key("m", b"a")) == "memory"
    assert await answers.invalidate("m") == 2
    assert await tier_of(answers, answers.key("m", b"a")) == ""
    await answers.sweep()
    assert (len(answers.memory), len(near.entries)) == (0, 0)
    await kept(answers, wall)
    assert await tier_of(answers, answers.key("m", b"a")) == "memory"
    assert await answers.invalidate() == 1
    assert await tier_of(answers, answers.key("m", b"a")) == ""


async def test_an_invalidation_is_in_force_before_anything_is_counted(answers: Answers, wall: Wall, near: Slot) -> None:
    await kept(answers, wall)
    near.gate = asyncio.Event()
    clearing = asyncio.create_task(answers.invalidate("m"))
    await asyncio.sleep(0)
    assert answers.at_hand(answers.key("m", b"a"), TERMS) is None
    near.gate.set()
    assert await clearing == 1


async def test_a_run_that_began_before_an_invalidation_is_not_kept(answers: Answers, wall: Wall) -> None:
    key = answers.key("m", b"a")
    await answers.invalidate("m")
    assert not answers.keep(key, answer_to(key, wall), TERMS)
    key = answers.key("m", b"a")
    await answers.forget(key.digest)
    assert not answers.keep(key, answer_to(key, wall), TERMS)
    await kept(answers, wall)
    assert await tier_of(answers, answers.key("m", b"a")) == "memory"


async def test_one_that_is_forgotten_while_it_is_written_does_not_stay(
    answers: Answers, wall: Wall, near: Slot
) -> None:
    near.gate = asyncio.Event()
    key = answers.key("m", b"a")
    answers.keep(key, answer_to(key, wall), DISK_ONLY)
    forgetting = asyncio.create_task(answers.forget(key.digest))
    await asyncio.sleep(0)
    near.gate.set()
    await forgetting
    await answers.flush()
    assert near.entries == {}


async def test_one_that_is_forgotten_while_it_is_written_is_not_given_in_between(
    codec: Codec, wall: Wall, near: Slot, far: Slot
) -> None:
    """A call that begins after that may find it before it is taken out again, in this process or in another one."""
    tiers = [GuardedTier(near), GuardedTier(far)]
    answers = Answers(MemoryTier(MIB), tiers, Invalidations(wall=wall), codec, wall=wall)
    key = await kept(answers, wall)
    written = [(tier, dict(tier.entries)) for tier in (near, far)]
    wall.now += 1
    await answers.forget(key.digest)
    for tier, entries in written:
        tier.entries.update(entries)
        assert await tier_of(answers, answers.key("m", b"a")) == ""
        assert len(answers.memory) == 0
        tier.entries.clear()
    wall.now += 1
    await kept(answers, wall)
    answers.memory.forget(key.digest)
    assert await tier_of(answers, answers.key("m", b"a")) == "disk"
    await answers.close()


async def test_one_that_is_forgotten_while_it_is_found_does_not_fill_what_is_above(
    answers: Answers, wall: Wall, near: Slot, far: Slot
) -> None:
    key = await kept(answers, wall)
    answers.memory.forget(key.digest)
    near.entries.clear()
    far.gate = asyncio.Event()
    finding = asyncio.create_task(answers.find(answers.key("m", b"a"), TERMS))
    await asyncio.sleep(0.01)
    await answers._invalidations.forget(key.digest)
    far.gate.set()
    await finding
    await answers.flush()
    assert (len(answers.memory), near.entries) == (0, {})


async def test_what_a_replaced_version_left_is_reclaimed_when_nobody_stores_under_it(
    answers: Answers, wall: Wall, near: Slot
) -> None:
    await kept(answers, wall, b"old", version="v1")
    await answers.sweep()
    assert len(near.entries) == 1
    await kept(answers, wall, b"new", version="v2")
    await answers.sweep()
    assert [label.version for _, label, _ in near.entries.values()] == ["v2"]


async def test_sweeping_the_disk_takes_up_no_news_in_its_thread(
    tmp_path: Path, codec: Codec, wall: Wall, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_in = set()
    mark = InvalidationLog.mark

    def watched(log: InvalidationLog) -> bytes:
        read_in.add(threading.get_ident())
        return mark(log)

    monkeypatch.setattr(InvalidationLog, "mark", watched)
    disk = GuardedTier(DiskTier(tmp_path / "answers", 64 * MIB, get_s=60, put_s=60))
    answers = Answers(MemoryTier(MIB), [disk], Invalidations(tmp_path / "invalidations", wall=wall), codec, wall=wall)
    await answers.start()
    await kept(answers, wall)
    await answers.invalidate("m")
    await kept(answers, wall)
    await answers.sweep()
    assert (await disk.held()).entries == 1
    assert read_in == {threading.get_ident()}
    await answers.close()


async def test_what_is_kept_while_a_tier_is_swept_stays(
    answers: Answers, wall: Wall, near: Slot, far: Slot, monkeypatch: pytest.MonkeyPatch
) -> None:
    reclaim = near.reclaim

    async def reclaim_late(stale: Callable[[Label, float], bool]) -> int:
        await answers._invalidations.invalidate("m")
        await kept(answers, wall, b"new")
        return await reclaim(stale)

    monkeypatch.setattr(near, "reclaim", reclaim_late)
    await kept(answers, wall, b"old")
    await answers.sweep()
    assert answers.key("m", b"new").digest in near.entries


async def test_closing_waits_for_what_is_being_written_but_not_for_long(
    answers: Answers, wall: Wall, near: Slot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polyroute.routing.cache.answers._CLOSE_S", 0.05)
    near.gate = asyncio.Event()
    key = answers.key("m", b"a")
    answers.keep(key, answer_to(key, wall), TERMS)
    await answers.close()
    assert near.entries == {}


async def test_two_processes_share_a_folder_and_what_one_invalidates_the_other_does_not_give(
    tmp_path: Path, codec: Codec, wall: Wall
) -> None:
    def process() -> Answers:
        disk = GuardedTier(DiskTier(tmp_path / "answers", 64 * MIB, get_s=60, put_s=60))
        invalidations = Invalidations(tmp_path / "invalidations", wall=wall)
        return Answers(MemoryTier(MIB), [disk], invalidations, codec, wall=wall)

    one, two = process(), process()
    await one.start()
    await two.start()
    key = await kept(one, wall)
    assert await tier_of(two, two.key("m", b"a")) == "disk"
    assert await one.invalidate("m") == 1
    assert await tier_of(two, two.key("m", b"a")) == ""
    await kept(two, wall)
    assert await tier_of(one, one.key("m", b"a")) == "disk"
    await two.forget(key.digest)
    assert await tier_of(one, one.key("m", b"a")) == ""
    wall.now += 1
    await kept(two, wall)
    await one.close()
    await two.close()
    again = process()
    await again.start()
    assert await tier_of(again, again.key("m", b"a")) == "disk"
    await again.close()
