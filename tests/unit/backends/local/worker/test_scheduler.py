"""The scheduler under random arrivals, cancels, pauses and caps, over a memory that only counts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from polyroute.backends.local.worker.forward.turn import Turn
from polyroute.backends.local.worker.scheduler import Scheduler


class Answer:
    """A sequence that ends after `count` tokens; it notes which of its tokens have been read since it last joined."""

    def __init__(self, id: int, prompt: list[int], count: int) -> None:
        self.id = id
        self.prompt = prompt
        self.arrival = 0
        self.processed = 0
        self.cached = 0
        self.generated = 0
        self.count = count

    def __repr__(self) -> str:
        return f"<{self.id}: {self.processed} of {len(self.prompt)}+{self.generated}>"

    @property
    def length(self) -> int:
        return len(self.prompt) + self.generated

    @property
    def room(self) -> int:
        return self.count - self.generated

    @property
    def decodes(self) -> bool:
        return 0 < self.processed == self.length - 1

    def tokens(self, start: int, stop: int) -> list[int]:
        return [*self.prompt, *[0] * self.generated][start:stop]


class CountingMemory:
    """`limit` tokens for all; prompts that were kept are found again, and take none."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held: dict[int, int] = {}
        self.filled: dict[int, int] = {}  # tokens whose keys and values are there
        self.kept: list[list[int]] = []

    @property
    def capacity_tokens(self) -> int:
        return self.limit

    def fits(self, id: int, tokens: int) -> bool:
        return sum(self.held.values()) - self.held.get(id, 0) + tokens <= self.limit

    def reserve(self, sequence: Any, tokens: int) -> bool:
        if not self.fits(sequence.id, tokens):
            return False
        self.held[sequence.id] = max(tokens, self.held.get(sequence.id, 0))
        self.filled.setdefault(sequence.id, 0)
        return True

    def release(self, sequence: Any) -> None:
        self.held.pop(sequence.id, None)
        self.filled.pop(sequence.id, None)

    def restore(self, sequence: Any) -> None:
        assert self.filled[sequence.id] == 0
        most = sequence.tokens(0, sequence.length - 1)
        for prompt in self.kept:
            common = 0
            while common < min(len(prompt), len(most)) and prompt[common] == most[common]:
                common += 1
            sequence.processed = max(sequence.processed, common)
        self.filled[sequence.id] = sequence.processed

    def keep(self, sequence: Any) -> None:
        self.kept.append(list(sequence.prompt))


class Load:
    """A scheduler, those who are in it, and a clock that checks each turn."""

    def __init__(self, limit: int, max_sequences: int, *, whole_prompts: bool = False) -> None:
        self.memory = CountingMemory(limit)
        self.max_sequences = max_sequences
        self.whole_prompts = whole_prompts
        self.scheduler: Scheduler[Answer] = Scheduler(
            self.memory, max_sequences=max_sequences, whole_prompts=whole_prompts
        )
        self.alive: dict[int, Answer] = {}
        self.paused: set[int] = set()
        self.submitted = 0

    def submit(self, prompt: list[int], count: int) -> Answer:
        answer = Answer(self.submitted, prompt, count)
        self.submitted += 1
        self.alive[answer.id] = answer
        self.scheduler.add(answer)
        return answer

    def remove(self, answer: Answer) -> None:
        self.scheduler.remove(answer)
        del self.alive[answer.id]
        self.paused.discard(answer.id)

    def pause(self, answer: Answer) -> None:
        self.scheduler.pause(answer.id)
        self.paused.add(answer.id)

    def resume(self, answer: Answer) -> None:
        self.scheduler.resume(answer.id)
        self.paused.discard(answer.id)

    def turn(self, prefill_tokens: int) -> Turn:
        busy = self.scheduler.busy
        assert busy == any(id not in self.paused for id in self.alive)
        decoded = [a for a in self.alive.values() if a.decodes and a.id not in self.paused]
        waited = [a for a in self.alive.values() if a.id not in self.memory.held]
        turn = self.scheduler.turn(prefill_tokens)
        assert bool(turn) == busy  # somebody always advances
        self._check_members(turn, decoded)
        self._check_prefill(turn, prefill_tokens)
        self._check_admission(turn, prefill_tokens, waited)
        self._advance(turn)
        return turn

    def _check_members(self, turn: Turn, decoded: list[Answer]) -> None:
        ids = [member.id for member in turn.members]
        assert len(ids) == len(set(ids))
        assert not self.paused & set(ids)
        for answer in decoded:  # takes part, unless it had to give its memory back
            assert answer in turn.members or answer.processed == 0
        for member in turn.members:
            assert self.memory.held[member.id] >= member.length
        assert sum(self.memory.held.values()) <= self.memory.limit
        assert len(self.memory.held) <= self.max_sequences

    def _check_prefill(self, turn: Turn, prefill_tokens: int) -> None:
        counts = [chunk.count for chunk in turn.chunks]
        if self.whole_prompts:
            assert sum(counts[:-1]) < prefill_tokens or not counts
            assert all(chunk.completes for chunk in turn.chunks)
        else:
            assert sum(counts) <= prefill_tokens
        for chunk in turn.chunks:
            assert 0 < chunk.count <= chunk.sequence.length - chunk.sequence.processed
            assert chunk.sequence.processed == self.memory.filled[chunk.sequence.id]  # what is there is not read again

    def _check_admission(self, turn: Turn, prefill_tokens: int, waited: list[Answer]) -> None:
        waiting = [a for a in self.alive.values() if a.id not in self.memory.held and a.id not in self.paused]
        if not waiting:
            return
        first = min(waiting, key=lambda a: a.arrival)
        joined = [a for a in waited if a.id in self.memory.held]
        assert all(a.arrival < first.arrival for a in joined)  # nobody overtakes
        if sum(chunk.count for chunk in turn.chunks) < prefill_tokens:  # then it was not for want of tokens
            full = len(self.memory.held) >= self.max_sequences
            assert full or not self.memory.fits(first.id, first.length)
            assert not self.paused & set(self.memory.held)  # their memory would have been taken

    def _advance(self, turn: Turn) -> None:
        choosing: list[Any] = turn.choosing
        advances: list[tuple[Any, int]] = [(a, 1) for a in turn.decoding]
        for answer, count in advances + [(chunk.sequence, chunk.count) for chunk in turn.chunks]:
            answer.processed += count
            self.memory.filled[answer.id] += count
        for answer in choosing:
            assert answer.processed == answer.length
            self.memory.keep(answer)
            answer.generated += 1
            if answer.generated == answer.count:
                self.remove(answer)

    def drain(self) -> None:
        """Everybody ends within a bound: each of its tokens may be read again each time that an older one grows."""
        for id in sorted(self.paused):
            self.resume(self.alive[id])
        work = sum(len(a.prompt) + a.count for a in self.alive.values())
        for _ in range(5 + 3 * work):
            if not self.alive:
                break
            self.turn(16)
        assert not self.alive
        assert not self.scheduler.busy
        assert not list(self.scheduler)
        assert not self.memory.held


class Random(RuleBasedStateMachine):
    """Everything that can happen to a scheduler, in any order."""

    load: Load

    @initialize(limit=st.integers(24, 120), places=st.integers(1, 6), whole=st.booleans())
    def start(self, limit: int, places: int, whole: bool) -> None:
        self.load = Load(limit, places, whole_prompts=whole)

    def someone(self, number: int) -> Answer:
        alive = list(self.load.alive.values())
        return alive[number % len(alive)]

    @rule(stream=st.integers(1, 3), length=st.integers(1, 40), count=st.integers(1, 30))
    def arrives(self, stream: int, length: int, count: int) -> None:
        length = min(length, self.load.memory.limit - 1)
        self.load.submit([stream] * length, min(count, self.load.memory.limit - length))

    @precondition(lambda self: self.load.alive)
    @rule(number=st.integers(0, 100))
    def leaves(self, number: int) -> None:
        self.load.remove(self.someone(number))

    @precondition(lambda self: self.load.alive)
    @rule(number=st.integers(0, 100))
    def falls_behind(self, number: int) -> None:
        self.load.pause(self.someone(number))

    @precondition(lambda self: self.load.alive)
    @rule(number=st.integers(0, 100))
    def catches_up(self, number: int) -> None:
        self.load.resume(self.someone(number))

    @rule(prefill_tokens=st.integers(1, 40), times=st.integers(1, 8))
    def turns(self, prefill_tokens: int, times: int) -> None:
        for _ in range(times):
            self.load.turn(prefill_tokens)

    @invariant()
    def everyone_is_known(self) -> None:
        if hasattr(self, "load"):
            assert {a.id for a in self.load.scheduler} == set(self.load.alive)
            assert set(self.load.memory.held) <= set(self.load.alive)

    def teardown(self) -> None:
        if hasattr(self, "load"):
            self.load.drain()


TestRandom = Random.TestCase
TestRandom.settings = settings(max_examples=100, stateful_step_count=30, deadline=None, derandomize=True)


def test_decoding_comes_first_and_prompts_share_what_is_left_by_arrival() -> None:
    load = Load(1000, 8)
    first, second = load.submit([1] * 10, 50), load.submit([2] * 30, 50)
    turn = load.turn(20)
    assert [(c.sequence, c.count) for c in turn.chunks] == [(first, 10), (second, 10)]
    third = load.submit([3] * 5, 50)
    turn = load.turn(12)
    assert turn.decoding == [first]
    assert [(c.sequence, c.count) for c in turn.chunks] == [(second, 12)]
    turn = load.turn(12)
    assert [(c.sequence, c.count) for c in turn.chunks] == [(second, 8), (third, 4)]
    assert (first.generated, second.generated, third.generated) == (3, 1, 0)


def test_a_whole_prompt_is_read_at_once_where_it_must_be() -> None:
    load = Load(1000, 8, whole_prompts=True)
    load.submit([1] * 100, 5)
    load.submit([2] * 100, 5)
    assert [c.count for c in load.turn(20).chunks] == [100]
    assert [c.count for c in load.turn(20).chunks] == [100]


def test_the_youngest_gives_its_memory_to_older_ones_and_is_read_anew() -> None:
    load = Load(30, 8)
    old, young = load.submit([1] * 10, 20), load.submit([2] * 10, 20)
    while not load.scheduler.preemptions:
        load.turn(16)
    assert young.processed == 0
    assert young.generated > 0
    assert list(load.memory.held) == [old.id]
    load.drain()


def test_a_paused_one_gives_its_memory_before_younger_ones_do() -> None:
    load = Load(40, 8)
    paused, old, young = (load.submit([stream] * 10, 12) for stream in (1, 2, 3))
    load.turn(64)
    load.pause(paused)
    while not load.scheduler.preemptions:
        load.turn(16)
    assert set(load.memory.held) == {old.id, young.id}
    assert paused.processed == 0
    load.drain()


def test_a_paused_one_makes_place_for_a_new_one_where_places_are_few() -> None:
    load = Load(400, 2)
    first, _ = load.submit([1] * 10, 12), load.submit([2] * 10, 12)
    load.turn(64)
    load.pause(first)
    third = load.submit([3] * 10, 12)
    load.turn(64)
    assert third.processed == 10
    assert load.scheduler.preemptions == 1


def test_nobody_is_busy_while_all_are_paused() -> None:
    load = Load(400, 2)
    only = load.submit([1] * 10, 12)
    load.pause(only)
    assert not load.scheduler.busy
    assert not load.turn(16)
    load.resume(only)
    assert load.turn(16)


def test_to_pause_a_stranger_changes_nothing() -> None:
    load = Load(400, 2)
    load.scheduler.pause(0)
    load.submit([1] * 10, 12)  # gets the ID 0
    assert load.scheduler.busy


def test_counts_of_those_who_decode_and_of_those_unread() -> None:
    load = Load(400, 2)
    first, *_ = (load.submit([stream] * 10, 12) for stream in (1, 2, 3))
    assert (load.scheduler.decoding, load.scheduler.unread) == (0, 2)  # a third one has no place
    load.turn(10)
    assert (load.scheduler.decoding, load.scheduler.unread) == (1, 2)
    load.pause(first)
    assert load.scheduler.decoding == 0


@pytest.mark.parametrize("fault", ["overtakes", "forgets", "leaks", "greedy", "starves"])
def test_these_checks_are_not_blind(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scheduler that is wrong in one way is found out by a load that a right one passes."""

    def overtakes(self: Any) -> list[Any]:
        return sorted(self, key=lambda s: -s.arrival if s in self._waiting else 0)

    def forgets(self: Any, sequence: Any) -> bool:
        return bool(sequence.id % 2 == 0 and self._memory.reserve(sequence, sequence.length))

    def leaks(self: Any, sequence: Any) -> None:
        (self._running if sequence in self._running else self._waiting).remove(sequence)

    original = Scheduler._chunks
    faults: dict[str, tuple[str, Any]] = {
        "overtakes": ("_unread", overtakes),
        "forgets": ("_reserve", forgets),
        "leaks": ("remove", leaks),
        "greedy": ("_chunks", lambda self, left: original(self, left + 1)),
        "starves": ("_chunks", lambda self, left: [] if len(self._running) > 1 else original(self, left)),
    }

    def run() -> None:
        load = Load(60, 3)
        for stream in (1, 2, 3, 4, 5):
            load.submit([stream] * 12, 14)
            load.turn(7)
        load.drain()

    run()
    monkeypatch.setattr(Scheduler, *faults[fault])
    with pytest.raises(AssertionError):
        run()
