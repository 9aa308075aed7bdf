"""Decides who takes part in a step; touches no tensor and knows no model."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator
from operator import attrgetter
from typing import Generic, TypeVar

from polyroute.backends.local.worker.forward.turn import Chunk, Holder, Memory, Turn

S = TypeVar("S", bound=Holder)

_arrival = attrgetter("arrival")


class Scheduler(Generic[S]):
    """Sequences by arrival: `running` ones hold memory, `waiting` ones do not yet, or had to give it back.

    Those that decode take part in each turn. What `prefill_tokens` leave is for prompts, oldest first; a waiting
    sequence joins as soon as there are tokens, a place among `max_sequences` and memory. Where a running one needs
    memory that is not there, the youngest gives up its own and is computed anew later (preemption by recompute).
    So the oldest always advances, and nobody starves.
    """

    def __init__(self, memory: Memory, *, max_sequences: int, whole_prompts: bool = False) -> None:
        self._memory = memory
        self._whole_prompts = whole_prompts
        self._max_sequences = max_sequences
        self._running: list[S] = []
        self._waiting: list[S] = []
        self._paused: set[int] = set()
        self._arrivals = 0
        self.preemptions = 0

    def __repr__(self) -> str:
        return f"<Scheduler {len(self._running)} running, {len(self._waiting)} waiting, {len(self._paused)} paused>"

    def __iter__(self) -> Iterator[S]:
        yield from self._running
        yield from self._waiting

    @property
    def busy(self) -> bool:
        """Whether a turn would advance anyone."""
        return any(s.id not in self._paused for s in self)

    @property
    def running(self) -> int:
        """How many hold memory and would take part in a turn."""
        return sum(1 for s in self._running if s.id not in self._paused)

    @property
    def waiting(self) -> int:
        """How many have no memory yet, or had to give it back, and would take it."""
        return sum(1 for s in self._waiting if s.id not in self._paused)

    @property
    def paused(self) -> int:
        """How many are left out."""
        return len(self._paused)

    @property
    def decoding(self) -> int:
        """How many of those running have been read, and get a token in each turn."""
        return sum(1 for s in self._running if _decodes(s) and s.id not in self._paused)

    @property
    def unread(self) -> int:
        """How many sequences the model has yet to read, and has a place for."""
        count = sum(1 for s in self if not _decodes(s) and s.id not in self._paused)
        return min(count, self._max_sequences)

    def add(self, sequence: S) -> None:
        """Takes in a new sequence, the youngest."""
        self._arrivals += 1
        sequence.arrival = self._arrivals
        self._waiting.append(sequence)

    def find(self, id: int) -> S | None:
        """The sequence of that ID."""
        return next((s for s in self if s.id == id), None)

    def remove(self, sequence: S) -> None:
        """Forgets a sequence, and frees what it held."""
        (self._running if sequence in self._running else self._waiting).remove(sequence)
        self._paused.discard(sequence.id)
        self._memory.release(sequence)

    def pause(self, id: int) -> None:
        """Leaves a sequence out of turns from now on; its memory is the first to be taken."""
        if self.find(id) is not None:
            self._paused.add(id)

    def resume(self, id: int) -> None:
        """Lets a paused sequence take part again."""
        self._paused.discard(id)

    def turn(self, prefill_tokens: int) -> Turn:
        """Who takes part next; all of them have the memory that they need."""
        before = self.preemptions
        decoding: list[Holder] = []
        for sequence in self._running.copy():
            gone = self.preemptions != before and sequence not in self._running
            if not gone and _decodes(sequence) and sequence.id not in self._paused and self._reserve(sequence):
                decoding.append(sequence)
        return Turn(decoding, self._chunks(prefill_tokens))

    def _chunks(self, left: int) -> list[Chunk]:
        chunks: list[Chunk] = []
        for sequence in self._unread():
            if left <= 0:
                break
            if sequence in self._waiting and not self._admit(sequence):
                break
            if sequence.processed == 0:
                self._memory.restore(sequence)
            count = sequence.length - sequence.processed
            if not self._whole_prompts:
                count = min(left, count)
            chunks.append(Chunk(sequence, count))
            left -= count
        return chunks

    def _unread(self) -> list[S]:
        paused = self._paused
        running = [s for s in self._running if not _decodes(s) and s.id not in paused]
        return running + [s for s in self._waiting if s.id not in paused]

    def _admit(self, sequence: S) -> bool:
        while len(self._running) >= self._max_sequences:
            if not self._preempt_paused():
                return False
        while not self._memory.reserve(sequence, sequence.length):
            if not self._preempt_paused():
                return False
        self._waiting.remove(sequence)
        insort(self._running, sequence, key=_arrival)
        return True

    def _reserve(self, sequence: S) -> bool:
        """Makes room for one more token; False where the sequence itself had to give way."""
        while not self._memory.reserve(sequence, sequence.length):
            if self._preempt_paused():
                continue
            youngest = self._running[-1]
            self._preempt(youngest)
            if youngest is sequence:
                return False
        return True

    def _preempt_paused(self) -> bool:
        victim = next((s for s in reversed(self._running) if s.id in self._paused), None)
        if victim is None:
            return False
        self._preempt(victim)
        return True

    def _preempt(self, sequence: S) -> None:
        self._memory.release(sequence)
        self._running.remove(sequence)
        sequence.processed = 0
        insort(self._waiting, sequence, key=_arrival)
        self.preemptions += 1


def _decodes(sequence: Holder) -> bool:
    return sequence.processed > 0 and sequence.processed == sequence.length - 1
