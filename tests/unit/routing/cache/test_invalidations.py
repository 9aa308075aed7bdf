"""What one process invalidates, all of a machine know at once; whatever becomes of the file, nothing comes back."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from polyroute.routing.cache import invalidation_log
from polyroute.routing.cache.invalidation_log import InvalidationLog, Kind, Record, name_of
from polyroute.routing.cache.invalidations import NOBODY, Invalidations
from polyroute.routing.cache.terms import AnswerKey


class Clock:
    """A wall clock that goes on by itself, a second each time that it is read."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        self.now += 1
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "invalidations"


@pytest.fixture
def process(path: Path) -> Iterator[Callable[[], Invalidations]]:
    """Each call is another process at the same file."""
    made: list[Invalidations] = []
    clock = Clock()

    def _process() -> Invalidations:
        made.append(Invalidations(path, wall=clock))
        return made[-1]

    yield _process
    for each in made:
        each.close()


async def opened(process: Callable[[], Invalidations]) -> Invalidations:
    invalidations = process()
    await invalidations.tend()
    assert invalidations.durable
    return invalidations


async def test_what_is_told_while_the_file_is_opened_is_not_missed(
    process: Callable[[], Invalidations], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await opened(process)
    read = InvalidationLog.after

    def read_late(log: InvalidationLog, count: int) -> list[Record]:
        monkeypatch.setattr(InvalidationLog, "after", read)
        records = log.after(count)
        InvalidationLog(path).append(Kind.MODEL, name_of("m"), Clock(2_000_000.0))
        return records

    monkeypatch.setattr(InvalidationLog, "after", read_late)
    late = await opened(process)
    assert late.moment("m").local > 2_000_000 * 1e6


async def test_other_threads_ask_of_the_moments_there_were(process: Callable[[], Invalidations]) -> None:
    one, two = await opened(process), await opened(process)
    await one.invalidate("a")
    then, moments = two.moment("a"), two.moments()
    await one.invalidate("a")
    assert (await asyncio.to_thread(moments, "a"), moments("b").local) == (then, two.moment("b").local)
    await asyncio.sleep(0)
    assert two.moment("a").local > then.local


async def test_the_file_is_looked_at_once_in_a_turn_of_the_loop_and_in_each(
    process: Callable[[], Invalidations], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await opened(process), await opened(process)
    looks = 0
    real = invalidation_log.InvalidationLog.mark

    def mark(self: invalidation_log.InvalidationLog) -> bytes:
        nonlocal looks
        looks += 1
        return real(self)

    monkeypatch.setattr(invalidation_log.InvalidationLog, "mark", mark)
    await asyncio.sleep(0)
    before = [one.moment(model) for model in ("m", "n", "m")]
    assert looks == 1
    await asyncio.sleep(0)
    assert one.moment("m") == before[0]
    assert looks == 2
    await two.invalidate("m")
    assert one.moment("m").local > before[0].local


def test_without_a_loop_it_is_looked_at_each_time(process: Callable[[], Invalidations]) -> None:
    one = asyncio.run(opened(process))
    two = asyncio.run(opened(process))
    before = one.moment("m")
    asyncio.run(two.invalidate("m"))
    assert one.moment("m").local > before.local


async def test_all_processes_know_at_once(process: Callable[[], Invalidations]) -> None:
    one, two = await opened(process), await opened(process)
    before = two.moment("m")
    assert one.moment("m") == before
    await one.invalidate("m")
    after = two.moment("m")
    assert after.local > before.local
    assert one.moment("m")[:2] == after[:2]
    assert two.moment("n").local == before.local
    await two.invalidate()
    assert one.moment("m").local == one.moment("n").local > after.local


async def test_single_answers_are_forgotten_everywhere(process: Callable[[], Invalidations]) -> None:
    one, two = await opened(process), await opened(process)
    forgotten: list[str] = []
    two.forgotten = forgotten.append
    kept, gone = (AnswerKey.of(text, two.moment("m")) for text in (b"kept", b"gone"))
    await one.forget(gone.digest)
    assert (two.holds(kept, "m"), two.holds(gone, "m")) == (True, False)
    assert forgotten == [gone.digest]
    assert two.holds(AnswerKey.of(b"gone", two.moment("m")), "m")  # a call that begins afterwards may store it again


async def test_a_call_that_began_before_an_invalidation_keeps_nothing(process: Callable[[], Invalidations]) -> None:
    one = await opened(process)
    key = AnswerKey.of(b"a", one.moment("m"))
    await one.invalidate("other")
    assert one.holds(key, "m")
    await one.invalidate("m")
    assert not one.holds(key, "m")


async def test_a_process_of_the_future_knows_it_too(process: Callable[[], Invalidations]) -> None:
    one = await opened(process)
    await one.invalidate("m")
    await one.forget("ab" * 32)
    assert (await opened(process)).moment("m")[:2] == one.moment("m")[:2]


async def test_a_clock_that_goes_back_brings_nothing_back(path: Path) -> None:
    early, late = Invalidations(path, wall=lambda: 1000.0), Invalidations(path, wall=lambda: 2000.0)
    await late.tend()
    await early.tend()
    seen = {late.moment("m").local}
    for _ in range(5):
        await early.invalidate("m")
        assert late.moment("m").local > max(seen)
        seen.add(late.moment("m").local)
    early.close()
    late.close()


def _cut(path: Path, keep: int) -> None:
    os.truncate(path, keep)


def _changed(path: Path, at: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= 0xFF
    path.write_bytes(raw)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "removed": lambda path: path.unlink(),
    "empty": lambda path: _cut(path, 0),
    "cut in the beginning": lambda path: _cut(path, 20),
    "cut in a record": lambda path: _cut(path, 24 + 64 + 30),
    "another magic": lambda path: _changed(path, 0),
    "another count": lambda path: _changed(path, 9),
    "another record": lambda path: _changed(path, 24 + 64 + 10),
    "rubbish": lambda path: path.write_bytes(b"rubbish" * 100_000),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("while_open", [True, False])
async def test_a_damaged_file_brings_nothing_back(
    process: Callable[[], Invalidations], path: Path, damage: Callable[[Path], object], while_open: bool
) -> None:
    """Whatever was stored under any moment so far is out of reach afterwards, for all processes alike."""
    one, two = await opened(process), await opened(process)
    moments = [one.moment("m").local]
    await one.invalidate("m")
    moments.append(two.moment("m").local)
    if not while_open:
        one.close()
        two.close()
    damage(path)
    one, two = (one, two) if while_open else (process(), process())
    for each in (one, two, one):
        await each.tend()
        await each.invalidate("x")
    assert one.moment("m")[:2] == two.moment("m")[:2]
    assert one.moment("m").local > max(moments)


async def test_a_full_file_is_replaced_by_what_still_counts(
    process: Callable[[], Invalidations], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invalidation_log, "CAPACITY", 16)
    one, two = await opened(process), await opened(process)
    await one.invalidate("rare")
    rare = two.moment("rare").local
    for i in range(50):
        before = two.moment("m").local
        await (one if i % 2 else two).invalidate("m")
        assert one.moment("m").local == two.moment("m").local > before
    assert one.moment("rare").local == rare
    assert (await opened(process)).moment("rare").local == rare


async def test_more_models_than_a_file_has_room_for_leave_all_out_of_reach(
    process: Callable[[], Invalidations], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invalidation_log, "CAPACITY", 16)
    one, two = await opened(process), await opened(process)
    seen: dict[str, int] = {}
    for i in range(40):
        model = f"m{i}"
        seen[model] = one.moment(model).local
        await one.invalidate(model)
        assert all(two.moment(model).local > before for model, before in seen.items())


async def test_without_a_file_it_is_in_force_here_and_written_later(path: Path, tmp_path: Path) -> None:
    path.parent.write_text("a file, where a folder should be")
    one = Invalidations(path)
    with capture_logs() as logs:
        for _ in range(3):
            await one.tend()
    assert [entry["event"] for entry in logs] == ["cache.invalidation_alone"]
    key = AnswerKey.of(b"a", one.moment("m"))
    await one.invalidate("m")
    assert not one.holds(key, "m")
    assert not one.trusted
    path.parent.unlink()
    two = Invalidations(path)
    await two.tend()
    before = two.moment("m").local
    await one.tend()
    assert two.moment("m").local > before
    assert one.moment("m").local == two.moment("m").local
    one.close()
    two.close()


async def test_a_process_that_stops_with_the_lock_holds_up_nobody_for_long(
    process: Callable[[], Invalidations], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invalidation_log, "_LOCK_S", 0.01)
    one, two = await opened(process), await opened(process)
    before = one.moment("m").local
    with invalidation_log.locked(path):
        await one.invalidate("m")
    assert one.moment("m").local > before
    assert two.moment("m").local == before
    await one.tend()
    assert two.moment("m").local > before


async def test_what_another_machine_tells_counts_once(process: Callable[[], Invalidations]) -> None:
    one, two = await opened(process), await opened(process)
    assert await one.heard(Kind.MODEL, name_of("m"), 77)
    local = two.moment("m").local
    assert not await two.heard(Kind.MODEL, name_of("m"), 77)
    assert not await two.heard(Kind.MODEL, name_of("m"), 5)
    assert (two.moment("m").local, two.moment("m").shared) == (local, 77)
    await one.heard(Kind.SHARED, NOBODY, 99)
    assert (two.moment("m").local, two.moment("m").shared) == (local, 99)
    assert two.shared() == {(Kind.MODEL, name_of("m")): 77, (Kind.SHARED, NOBODY): 99}


async def test_many_at_once_lose_nothing(process: Callable[[], Invalidations]) -> None:
    processes = [await opened(process) for _ in range(4)]
    await asyncio.gather(*(each.invalidate(f"m{i}") for i, each in enumerate(processes * 5)))
    assert len({each.moment(f"m{i}").local for i in range(20) for each in processes[:1]}) == 20
    assert all(one.moment(f"m{i}")[:2] == processes[0].moment(f"m{i}")[:2] for i in range(20) for one in processes)
