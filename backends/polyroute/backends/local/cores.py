"""Shares the machine's cores among the worker processes that have something to compute."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

_SETTLE_S: Final = 0.5
"""How long a worker that has nothing to do keeps its share, in seconds: a chat's next turn often follows at once."""
_CGROUPS: Final = Path("/sys/fs/cgroup")


def step_threads(environ: Mapping[str, str] = os.environ) -> int:
    """How many threads all workers together may compute with: one core is the router's, where there are several.

    `OMP_NUM_THREADS` makes it fewer.
    """
    threads = max(1, usable_cores() - 1)
    asked = environ.get("OMP_NUM_THREADS", "")
    return min(threads, int(asked)) if asked.isdecimal() and int(asked) > 0 else threads


def usable_cores(cgroups: Path = _CGROUPS, own: Path = Path("/proc/self/cgroup")) -> int:
    """Cores that this process may use: by its affinity, and by its container's CPU quota (cgroup v2, `cpu.max`)."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    quotas = [quota for place in _places(cgroups, own) if (quota := _quota(place / "cpu.max")) is not None]
    return max(1, int(min([cores, *quotas])))


def _places(cgroups: Path, own: Path) -> list[Path]:
    """The process's control group and those above it: each may have a quota."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return []
    inside = next((line.removeprefix("0::").strip("/") for line in lines if line.startswith("0::")), "")
    place = cgroups / inside
    return [place, *(above for above in place.parents if above.is_relative_to(cgroups))]


def _quota(file: Path) -> float | None:
    """Cores' worth of time, from `MICROSECONDS PERIOD` or `max PERIOD`."""
    try:
        quota, period = file.read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


class Cores:
    """`threads` to be shared evenly by the workers that are busy, at least one each.

    A worker is told when its number changes, and only while it is busy. Belongs to one event loop.
    """

    def __init__(self, threads: int | None = None, *, settle_s: float = _SETTLE_S) -> None:
        self._threads = step_threads() if threads is None else threads
        self._settle_s = settle_s
        self._busy: list[Seat] = []

    def __repr__(self) -> str:
        return f"<Cores {self._threads} threads for {len(self._busy)}>"

    def seat(self, tell: Callable[[int], None]) -> Seat:
        """A place for one worker; `tell` is called with the number of its threads when that changes."""
        return Seat(self, self._threads, self._settle_s, tell)

    def _enter(self, seat: Seat) -> None:
        if seat not in self._busy:
            self._busy.append(seat)
            self._share()

    def _leave(self, seat: Seat) -> None:
        if seat in self._busy:
            self._busy.remove(seat)
            self._share()

    def _share(self) -> None:
        for place, seat in enumerate(self._busy):
            each, left = divmod(self._threads, len(self._busy))
            seat._set(max(1, each + (place < left)))


class Seat:
    """One worker's part in `Cores`. It is busy while it has a claim, whatever that is for, and a little longer."""

    def __init__(self, cores: Cores, threads: int, settle_s: float, tell: Callable[[int], None]) -> None:
        self._cores = cores
        self._settle_s = settle_s
        self._tell = tell
        self._claims: set[str] = set()
        self._leaving: asyncio.TimerHandle | None = None
        self.threads = threads

    def claim(self, reason: str) -> None:
        """The worker computes, for `reason`; twice is once."""
        self._claims.add(reason)
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None
        self._cores._enter(self)

    def release(self, reason: str) -> None:
        """The worker computes no longer for `reason`."""
        if reason in self._claims:
            self._claims.remove(reason)
            if not self._claims:
                self._leaving = asyncio.get_running_loop().call_later(self._settle_s, self.leave)

    def leave(self) -> None:
        """The worker is gone, or has no claims any more."""
        self._claims.clear()
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None
        self._cores._leave(self)

    def _set(self, threads: int) -> None:
        if threads != self.threads:
            self.threads = threads
            self._tell(threads)
