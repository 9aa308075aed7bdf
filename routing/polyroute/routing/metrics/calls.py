"""The counts of whole calls: what every call leaves behind when it ends."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, TypeAlias

from prometheus_client import CollectorRegistry, Counter, Histogram

from polyroute.core import telemetry
from polyroute.core.event import CacheResult, Route, Timing, Usage
from polyroute.routing.metrics.instruments import counter, gauge, histogram
from polyroute.routing.metrics.series import Series

_FROM_A_MODEL: Final = (CacheResult.MISS, CacheResult.BYPASS, CacheResult.UNSPECIFIED)
_Kind: TypeAlias = tuple[str, str, str, CacheResult, str, str]  # requested, model, variant, cache, outcome, operation


@dataclass(slots=True, eq=False)
class _Ending:
    """The series of one kind of ending, found once: a call then costs one look.

    Those of tokens are found with the first token, for most kinds of failure have none.
    """

    requests: Counter
    duration: Histogram
    first_token: Histogram | None
    per_token: Histogram | None
    overhead: Histogram | None
    reused: Counter
    input: Histogram | None = None
    output: Histogram | None = None


class Calls:
    """Instruments of calls. What was found of a name is dropped by `drop`, when its series end."""

    def __init__(self, registry: CollectorRegistry, series: Series) -> None:
        self._series = series
        self._in_flight = gauge(telemetry.IN_FLIGHT, registry)
        self._requests = counter(telemetry.REQUESTS, registry)
        self._duration = histogram(telemetry.DURATION, registry)
        self._first_token = histogram(telemetry.FIRST_TOKEN, registry)
        self._per_token = histogram(telemetry.PER_TOKEN, registry)
        self._tokens = histogram(telemetry.TOKENS, registry)
        self._reused = counter(telemetry.PREFIX_TOKENS, registry)
        self._overhead = histogram(telemetry.OVERHEAD, registry)
        self._endings: dict[_Kind, _Ending] = {}

    def drop(self, names: Collection[str]) -> None:
        """These names have ended."""
        gone = set(names)
        self._endings = {kind: ending for kind, ending in self._endings.items() if gone.isdisjoint(kind[:2])}

    def begun(self) -> None:
        """A call has come in."""
        self._in_flight.inc()

    def ended(self, route: Route, outcome: str, timing: Timing, usage: Usage, operation: str, trace_id: str) -> None:
        """See `Metrics.call_ended`."""
        self._in_flight.dec()
        ending, kind = self._ending(route, outcome, operation)
        exemplar = {"trace_id": trace_id} if trace_id else None
        ending.requests.inc()
        ending.duration.observe(timing.total_s, exemplar)
        if usage.prompt_tokens:
            if ending.input is None:
                ending.input = self._tokens_of(kind, "input")
            ending.input.observe(usage.prompt_tokens)
        if usage.completion_tokens:
            if ending.output is None:
                ending.output = self._tokens_of(kind, "output")
            ending.output.observe(usage.completion_tokens)
        if ending.overhead is not None:
            ending.overhead.observe(timing.router_overhead_s)
        if ending.first_token is not None and ending.per_token is not None:
            ending.first_token.observe(timing.first_token_s, exemplar)
            if usage.completion_tokens > 1:
                ending.per_token.observe((timing.total_s - timing.first_token_s) / (usage.completion_tokens - 1))
            if usage.cached_prompt_tokens:
                ending.reused.inc(usage.cached_prompt_tokens)

    def _ending(self, route: Route, outcome: str, operation: str) -> tuple[_Ending, _Kind]:
        requested = self._series.known(route.requested)
        model = self._series.known(route.deployment or route.model or route.requested)
        kind = (requested, model, route.variant, route.cache, outcome, operation)
        found = self._endings.get(kind)
        if found is None:
            found = self._endings[kind] = self._find(kind)
        return found, kind

    def _tokens_of(self, kind: _Kind, type: str) -> Histogram:
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
