"""The counts of whole calls: what every call leaves behind when it ends."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from prometheus_client import CollectorRegistry, Counter

from polyroute.core import telemetry
from polyroute.core.event import CacheResult, Route, Timing, Usage
from polyroute.routing.metrics.instruments import FastHistogram, counter, gauge, histogram
from polyroute.routing.metrics.later import Later, register
from polyroute.routing.metrics.series import Series

_FROM_A_MODEL: Final = (CacheResult.MISS, CacheResult.BYPASS, CacheResult.UNSPECIFIED)
_Kind: TypeAlias = tuple[str, str, str, CacheResult, str, str]  # requested, model, variant, cache, outcome, operation
_Ended: TypeAlias = tuple[Route, str, Timing, Usage, str]  # outcome, operation
_Took: TypeAlias = tuple[Timing, Usage]


@dataclass(slots=True, eq=False)
class _Ending:
    """The series of one kind of ending, found once.

    Those of tokens are found with the first token, for most kinds of failure have none.
    """

    requests: Counter
    duration: FastHistogram
    first_token: FastHistogram | None
    per_token: FastHistogram | None
    overhead: FastHistogram | None
    reused: Counter
    input: FastHistogram | None = None
    output: FastHistogram | None = None


class Calls:
    """Instruments of calls, which are counted later, `later`.

    What was found of a name is dropped by `drop`, when its series end.
    """

    def __init__(self, registry: CollectorRegistry, series: Series) -> None:
        self._series = series
        self._in_flight = 0
        gauge(telemetry.IN_FLIGHT, registry).set_function(lambda: self._in_flight)
        self._requests = counter(telemetry.REQUESTS, None)
        self._duration = histogram(telemetry.DURATION, None)
        self._first_token = histogram(telemetry.FIRST_TOKEN, None)
        self._per_token = histogram(telemetry.PER_TOKEN, None)
        self._tokens = histogram(telemetry.TOKENS, None)
        self._reused = counter(telemetry.PREFIX_TOKENS, None)
        self._overhead = histogram(telemetry.OVERHEAD, None)
        self._endings: dict[_Kind, _Ending] = {}
        self.later: Later[_Ended] = Later(self._count)
        counted = (self._requests, self._duration, self._first_token, self._per_token)
        register(registry, (*counted, self._tokens, self._reused, self._overhead), self.later)

    def begun(self) -> None:
        """A call has come in."""
        self._in_flight += 1

    def ended(self, route: Route, outcome: str, timing: Timing, usage: Usage, operation: str, trace_id: str) -> None:
        """See `Metrics.call_ended`. One with an exemplar is counted at once, for that says when it was."""
        self._in_flight -= 1
        if trace_id:
            with self.later.counted():
                self._add(self._kind(route, outcome, operation), [(timing, usage)], {"trace_id": trace_id})
            return
        self.later.add((route, outcome, timing, usage, operation))

    def drop(self, names: Collection[str]) -> None:
        """These names have ended."""
        gone = set(names)
        self._endings = {kind: ending for kind, ending in self._endings.items() if gone.isdisjoint(kind[:2])}

    def _count(self, ended: Sequence[_Ended]) -> None:
        of_kind: defaultdict[_Kind, list[_Took]] = defaultdict(list)
        for route, outcome, timing, usage, operation in ended:
            of_kind[self._kind(route, outcome, operation)].append((timing, usage))
        for kind, took in of_kind.items():
            self._add(kind, took)

    def _kind(self, route: Route, outcome: str, operation: str) -> _Kind:
        requested = self._series.known(route.requested)
        model = self._series.known(route.deployment or route.model or route.requested)
        return (requested, model, route.variant, route.cache, outcome, operation)

    def _add(self, kind: _Kind, took: Sequence[_Took], exemplar: dict[str, str] | None = None) -> None:
        ending = self._endings.get(kind)
        if ending is None:
            ending = self._endings[kind] = self._find(kind)
        ending.requests.inc(len(took))
        ending.duration.observe_all([timing.total_s for timing, _ in took], exemplar)
        read = [usage.prompt_tokens for _, usage in took if usage.prompt_tokens]
        if read:
            if ending.input is None:
                ending.input = self._tokens_of(kind, "input")
            ending.input.observe_all(read)
        written = [usage.completion_tokens for _, usage in took if usage.completion_tokens]
        if written:
            if ending.output is None:
                ending.output = self._tokens_of(kind, "output")
            ending.output.observe_all(written)
        if ending.overhead is not None:
            ending.overhead.observe_all([timing.router_overhead_s for timing, _ in took])
        if ending.first_token is not None and ending.per_token is not None:
            ending.first_token.observe_all([timing.first_token_s for timing, _ in took], exemplar)
            ending.per_token.observe_all([_per_token_s(*each) for each in took if each[1].completion_tokens > 1])
            ending.reused.inc(sum(usage.cached_prompt_tokens for _, usage in took))

    def _tokens_of(self, kind: _Kind, type: str) -> FastHistogram:
        requested, model, _, result, _, operation = kind
        more = (operation, telemetry.PROVIDER, result.label, type)
        return self._series.between(self._tokens, (requested, model), more)

    def _find(self, kind: _Kind) -> _Ending:
        requested, model, variant, result, outcome, operation = kind
        names, described, cache = (requested, model), (operation, telemetry.PROVIDER), result.label
        ok, between = outcome == "ok", self._series.between
        modelled = ok and result in _FROM_A_MODEL
        return _Ending(
            requests=between(self._requests, (model, requested), (variant, cache, outcome)),
            duration=between(self._duration, names, (*described, cache, "" if ok else outcome)),
            first_token=between(self._first_token, names, described) if modelled else None,
            per_token=between(self._per_token, names, described) if modelled else None,
            overhead=self._series.of(self._overhead, model) if ok else None,
            reused=self._series.of(self._reused, model),
        )


def _per_token_s(timing: Timing, usage: Usage) -> float:
    """Mean time between the tokens of an answer, after the first."""
    return (timing.total_s - timing.first_token_s) / (usage.completion_tokens - 1)
