"""A replica as a model of time: continuous batching, chunked prefill, and a cache of prefixes."""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from benchmarks.routing.trace import Arrival


@dataclass(frozen=True, slots=True)
class Shape:
    """How fast an engine is: a step takes `step_s`, `sequence_s` more for each answer in the making, and `token_s` more
    for each prompt token that it computes, `chunk` at most. Roughly an 8B model on a data-centre GPU.
    """

    step_s: float = 0.010
    sequence_s: float = 0.00015
    token_s: float = 0.00005
    chunk: int = 512
    max_sequences: int = 64
    cache_tokens: int = 200_000


@dataclass(eq=False, slots=True)
class Work:
    """One request on its way: the replicas that it was sent to, and at the last of them, the tokens of its prompt that
    were in the cache, and when its answer began.
    """

    arrival: Arrival
    tried: tuple[str, ...] = ()
    admission: int = 0
    hit_tokens: int = 0
    began: float | None = None


@dataclass(slots=True)
class Progress:
    """What came of a replica's work at one instant: answers that began and answers that are complete."""

    began: list[Work] = field(default_factory=list)
    done: list[Work] = field(default_factory=list)


class Engine:
    """One replica. Its time stands still between `due` instants: `advance` there, and after each call that changes it.

    A phase is a run of equal steps: it lasts until a prompt is computed, an answer is complete, or, while no prompt is
    being computed, until a request arrives. `slowness` multiplies every step.
    """

    def __init__(self, shape: Shape, slowness: float = 1.0) -> None:
        self.due: float | None = None
        self._shape = shape
        self._slowness = slowness
        self._cache = PrefixCache(shape.cache_tokens)
        self._waiting: deque[Work] = deque()
        self._prompt: Work | None = None  # the one that is being computed
        self._prompt_left = 0.0
        self._running: list[tuple[int, int, Work]] = []  # by the step after which each is complete
        self._steps = self._order = 0
        self._phase, self._phase_at, self._step_s = 0, 0.0, 0.0

    @property
    def works(self) -> list[Work]:
        """The requests that are here, answered in part or not at all."""
        begun = [work for _, _, work in self._running]
        return [*begun, *([self._prompt] if self._prompt else []), *self._waiting]

    def add(self, work: Work, now: float) -> None:
        """Takes a request in."""
        self._waiting.append(work)
        if self.due is None:
            self._start(now)
        elif self._prompt is None and len(self._running) < self._shape.max_sequences:
            self._phase = min(self._phase, math.ceil((now - self._phase_at) / self._step_s))
            self.due = self._phase_at + self._phase * self._step_s

    def advance(self) -> Progress:
        """Ends the phase that is due, and starts the next one."""
        now = self.due or 0.0
        progress = Progress()
        self._steps += self._phase
        if self._prompt is not None:
            chunks = math.ceil(self._prompt_left / self._shape.chunk)
            if self._phase >= chunks:
                self._begin(self._prompt, now)
                progress.began.append(self._prompt)
                self._prompt = None
            else:
                self._prompt_left *= 1 - self._phase / chunks
        while self._running and self._running[0][0] <= self._steps:
            work = heapq.heappop(self._running)[2]
            self._cache.add((work.arrival.answer,))
            progress.done.append(work)
        self._start(now)
        return progress

    def _begin(self, work: Work, now: float) -> None:
        work.began = now
        self._order += 1
        heapq.heappush(self._running, (self._steps + work.arrival.answer[1] - 1, self._order, work))

    def _start(self, now: float) -> None:
        shape = self._shape
        if self._prompt is None and self._waiting and len(self._running) < shape.max_sequences:
            work = self._prompt = self._waiting.popleft()
            work.hit_tokens = min(self._cache.known(work.arrival.parts), work.arrival.prompt_tokens - 1)
            self._cache.add(work.arrival.parts)
            self._prompt_left = work.arrival.prompt_tokens - work.hit_tokens
        if self._prompt is None and not self._running:
            self.due = None
            return
        self._step_s = shape.step_s + shape.sequence_s * len(self._running)
        left = self._running[0][0] - self._steps if self._running else None
        if self._prompt is None:
            self._phase = left or 0
        else:
            chunks = math.ceil(self._prompt_left / shape.chunk)
            self._step_s += shape.token_s * self._prompt_left / chunks
            self._phase = chunks if left is None else min(chunks, left)
        self._step_s *= self._slowness
        self._phase_at = now
        self.due = now + self._phase * self._step_s


class PrefixCache:
    """The pieces of prompts and answers that an engine still has keys and values of; the oldest leave first."""

    def __init__(self, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._tokens = 0
        self._pieces: OrderedDict[int, int] = OrderedDict()

    def known(self, parts: Iterable[tuple[int, int]]) -> int:
        """Tokens of the pieces from the first on up to one that is missing."""
        tokens = 0
        for number, size in parts:
            if number not in self._pieces:
                break
            tokens += size
        return tokens

    def add(self, parts: tuple[tuple[int, int], ...]) -> None:
        """Keeps these pieces, the first of them longest."""
        for number, size in reversed(parts):
            if number not in self._pieces:
                self._pieces[number] = size
                self._tokens += size
            self._pieces.move_to_end(number)
        while self._tokens > self._max_tokens:
            self._tokens -= self._pieces.popitem(last=False)[1]
