"""What the router is meant to reach beside its floors and its peers, and how far a run found it from that."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.router.cases import LITELLM, OURS
from benchmarks.router.results import Results
from benchmarks.router.summary import Line, lines
from benchmarks.router.variants import many_workers

_CALLERS = 32


@dataclass(frozen=True, slots=True)
class Aim:
    """A figure with a bound, which it should not be below (or, with `at_most`, above); `found` None: not measured."""

    what: str
    bound: float
    found: float | None
    at_most: bool = False
    unit: str = ""

    @property
    def met(self) -> bool | None:
        """Whether it is, None where it was not measured."""
        if self.found is None:
            return None
        return self.found <= self.bound if self.at_most else self.found >= self.bound


def aims(results: Results) -> list[Aim]:
    """Everything that is aimed at, in the order of the cases."""
    found = lines(results.found)
    return [*_beside_floors(found), *_beside_peers(found), *_of_memory(results), *_of_workers(results)]


def _beside_floors(found: Sequence[Line]) -> Iterator[Aim]:
    def of_floor(name: str, protocol: str) -> float | None:
        return _of(found, name, protocol, OURS, lambda line: line.of_floor)

    yield Aim("gRPC miss, of bare grpc.aio over aiohttp", 0.80, of_floor("unary-miss", "grpc"))
    yield Aim("gRPC memory hit, of a bare grpc.aio echo", 0.85, of_floor("memory-hit", "grpc"))
    yield Aim("REST miss, of a bare aiohttp proxy", 0.65, of_floor("unary-miss", "http"))
    yield Aim("gRPC stream, of bare grpc.aio over aiohttp, a message an event", 0.80, of_floor("stream-burst", "grpc"))
    yield Aim("REST stream, of a bare aiohttp relay", 1 / 3, of_floor("stream-burst", "http"))


def _beside_peers(found: Sequence[Line]) -> Iterator[Aim]:
    def times(name: str, peer: str) -> float | None:
        return _of(found, name, "http", peer, lambda line: line.ours_is)

    def times_by_cpu(name: str, peer: str) -> float | None:
        return _of(found, name, "http", peer, lambda line: line.ours_is_by_cpu)

    yield Aim("misses, times LiteLLM's", 25, times("unary-miss", LITELLM))
    yield Aim("memory hits, times LiteLLM's", 40, times("memory-hit", LITELLM))
    for peer in ("tensorzero", "sglang-router"):
        yield Aim(f"words a second of processor, times those of {peer}", 1, times_by_cpu("stream-burst", peer))
    for protocol, shown in (("grpc", "gRPC"), ("http", "REST")):
        added = _of(found, "first-token", protocol, OURS, lambda line: line.added_first_us, callers=1)
        yield Aim(f"first word over {shown}, added", 1000, added, at_most=True, unit=" us")


def _of_memory(results: Results) -> Iterator[Aim]:
    ours = [footprint for footprint in results.footprints if footprint.name == OURS]
    start = max((footprint.start_mb for footprint in ours), default=None)
    yield Aim("memory after start", 120, start, at_most=True, unit=" MB")
    for protocol, shown in (("grpc", "gRPC"), ("http", "REST")):
        each = next((footprint.stream_kb for footprint in ours if footprint.protocol == protocol), None)
        yield Aim(f"an open stream over {shown}", 20, each, at_most=True, unit=" KB")


def _of_workers(results: Results) -> Iterator[Aim]:
    one, *more = results.variants.get(many_workers(()).title, [None])
    for protocol, shown in (("grpc", "gRPC"), ("http", "REST")):
        times = bare = None
        if one is not None and more and protocol in one.rounds:
            times, bare = more[0].times(one, protocol), more[0].bare_times(one, protocol)
        beside = "" if bare is None else f" (two bare processes: {bare:.2f})"
        yield Aim(f"two workers over {shown}, times one{beside}", 1.7, times)


def _of(
    found: Sequence[Line],
    name: str,
    protocol: str,
    contender: str,
    figure: Callable[[Line], float | None],
    callers: int = _CALLERS,
) -> float | None:
    for line in found:
        if (line.case.name, line.case.protocol, line.callers, line.name) == (name, protocol, callers, contender):
            return figure(line)
    return None
