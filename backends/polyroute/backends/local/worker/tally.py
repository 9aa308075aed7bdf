"""What an engine has done so far, in numbers that only grow."""

from __future__ import annotations

from bisect import bisect_left

from polyroute.backends.local.worker.sequence import Sequence
from polyroute.core.backend import EngineStatus
from polyroute.core.telemetry import ENGINE_BATCH, ENGINE_STEP


class Tally:
    """Counts steps and tokens; the meaning of each number is that of `EngineStatus`."""

    def __init__(self) -> None:
        self.steps = 0
        self.output_tokens = 0
        self._computed = 0
        self._reused = 0
        self._steps_s = 0.0
        self._step_sizes = [0] * (len(ENGINE_STEP.buckets) + 1)
        self._batched = 0
        self._batch_sizes = [0] * (len(ENGINE_BATCH.buckets) + 1)

    def step(self, members: int, read: int, took_s: float) -> None:
        """One step is done, in which `members` took part and `read` tokens of prompts were computed."""
        self.steps += 1
        self._computed += read
        self._steps_s += took_s
        self._step_sizes[bisect_left(ENGINE_STEP.buckets, took_s)] += 1
        self._batched += members
        self._batch_sizes[bisect_left(ENGINE_BATCH.buckets, members)] += 1

    def read(self, sequence: Sequence) -> None:
        """The prompt of a sequence has been read; what of it was found counts the first time alone."""
        if not sequence.generated:
            self._reused += sequence.cached

    def status(
        self, *, running: int, waiting: int, paused: int, kv_used_bytes: int, kv_limit_bytes: int, preemptions: int
    ) -> EngineStatus:
        """These numbers beside those of the moment, which the engine knows."""
        return EngineStatus(
            running=running,
            waiting=waiting,
            paused=paused,
            kv_used_bytes=kv_used_bytes,
            kv_limit_bytes=kv_limit_bytes,
            step_sizes=tuple(self._step_sizes),
            steps_s=self._steps_s,
            batch_sizes=tuple(self._batch_sizes),
            batched=self._batched,
            computed_tokens=self._computed,
            reused_tokens=self._reused,
            output_tokens=self.output_tokens,
            preemptions=preemptions,
        )
