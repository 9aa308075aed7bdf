"""What a server takes before it is asked anything, after many calls, and with many streams open."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from benchmarks.rig.floors import STREAM_WORDS, WORDS
from benchmarks.rig.programs import CannotRun, held, load
from benchmarks.rig.workload import UNIQUE, Ask
from benchmarks.router.cases import OURS, PEERS
from benchmarks.router.contenders import Contender, Place, running

TITLE: Final = "start and memory"
SUBJECTS: Final = (
    (OURS, "grpc"),
    (OURS, "http"),
    ("grpc pass-through", "grpc"),
    ("http proxy", "http"),
    *((peer, "http") for peer in PEERS if "," not in peer),
)
"""Who is looked at, and over which protocol."""

_MISS: Final = Ask(WORDS, slot=UNIQUE)
_OPEN: Final = Ask(STREAM_WORDS, stream=True, pace_us=600_000_000, slot=UNIQUE)
_STREAMS_EACH: Final = 100
_CALLERS: Final = 32
_OPEN_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Footprint:
    """Of one server over one protocol; memory is resident, of all its processes.

    `start_s` is from its command to its first answer. `calls` is how many calls it had when `calls_mb` was read, a
    tenth of them when `tenth_mb` was: fewer than were wanted where time was up. `stream_kb` is what each of `streams`
    open ones takes beyond what there was before them; None where they could not all be opened.
    """

    name: str
    protocol: str
    start_s: float
    start_mb: float
    calls: int
    tenth_mb: float
    calls_mb: float
    streams: int
    stream_kb: float | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """How many starts, calls (in loads of `load_s`, within `seconds` in all) and open streams."""

    starts: int
    calls: int
    load_s: float
    seconds: float
    streams: int


def measure(
    names: Sequence[str], protocols: Sequence[str], wanted: Wanted, place: Place, tell: Callable[[str], None]
) -> tuple[list[Footprint], list[str]]:
    """The footprints of those of `SUBJECTS` that are named, one after the other, and what went wrong."""
    found, failures = [], []
    for name, protocol in SUBJECTS:
        if name not in names or protocol not in protocols:
            continue
        tell(f"{time.strftime('%H:%M:%S')} {TITLE}: {name}, {protocol}")
        try:
            found.append(_footprint(name, protocol, wanted, place, failures))
        except (CannotRun, OSError) as error:
            failures.append(f"{TITLE}, {name}, {protocol}: {error}")
    return found, failures


def _footprint(name: str, protocol: str, wanted: Wanted, place: Place, failures: list[str]) -> Footprint:
    """Streams and calls have a process each: memory that one leaves free would hide what the other takes."""
    starts: list[tuple[float, float]] = []
    stream_kb, called = None, (0, 0.0, 0.0)
    for number in range(max(2, wanted.starts)):
        begun = time.monotonic()
        with running(name, place) as contender:
            starts.append((time.monotonic() - begun, _mb(contender)))
            if number == 0:
                try:
                    stream_kb = _kb_a_stream(contender, protocol, wanted.streams, place)
                except CannotRun as error:
                    failures.append(f"{wanted.streams:,} streams, {name}, {protocol}: {error}")
            elif number == 1:
                called = _after_calls(contender, protocol, wanted, place)
    start_s, start_mb = median(s for s, _ in starts), median(mb for _, mb in starts)
    return Footprint(name, protocol, start_s, start_mb, *called, wanted.streams, stream_kb)


def _kb_a_stream(contender: Contender, protocol: str, streams: int, place: Place) -> float:
    load(place.folder, contender.target(protocol, _MISS, 1), 1, 0.5, next(place.seeds))  # so that all code is there
    connections = max(1, streams // _STREAMS_EACH) if protocol == "grpc" else streams
    before = _mb(contender)
    with held(place.folder, contender.target(protocol, _OPEN, 1), streams, connections, next(place.seeds)):
        _until_open(streams, place)
        return (_mb(contender) - before) * 1e3 / streams


def _until_open(streams: int, place: Place) -> None:
    until = time.monotonic() + _OPEN_S
    while (there := place.upstream.seen().open) < streams:
        if time.monotonic() > until:
            raise CannotRun(f"only {there:,} of {streams:,} streams are open at the upstream")
        time.sleep(0.05)


def _after_calls(contender: Contender, protocol: str, wanted: Wanted, place: Place) -> tuple[int, float, float]:
    target, done, tenth_mb = contender.target(protocol, _MISS, 1), 0, 0.0
    until = time.monotonic() + wanted.seconds
    while done < wanted.calls and time.monotonic() < until:
        done += load(place.folder, target, _CALLERS, wanted.load_s, next(place.seeds)).all
        if not tenth_mb and (done >= wanted.calls / 10 or time.monotonic() > until - wanted.seconds * 0.9):
            tenth_mb = _mb(contender)
    return done, tenth_mb, _mb(contender)


def _mb(contender: Contender) -> float:
    return contender.process.rss_mb
