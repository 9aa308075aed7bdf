"""What the router counts, on a Prometheus registry; names and meanings stand in `core.telemetry`."""

from __future__ import annotations

from collections import Counter as Counted
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TypeAlias, TypeVar, cast

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as MetricFamily
from prometheus_client.registry import Collector

from polyroute.core import telemetry
from polyroute.core.backend import ModelState
from polyroute.core.event import Timing, Usage
from polyroute.core.telemetry import Metric
from polyroute.routing.views import MemoryView, ModelView

_Instrument: TypeAlias = Counter | Histogram
_InstrumentT = TypeVar("_InstrumentT", Counter, Histogram)


class Metrics:
    """The instruments. `known` are the names that may become labels; all others are counted as `_other`."""

    def __init__(self, registry: CollectorRegistry, known: Collection[str] = ()) -> None:
        self.registry = registry
        self._known = set(known)
        self._requests = _counter(telemetry.REQUESTS, registry)
        self._in_flight = _gauge(telemetry.IN_FLIGHT, registry)
        self._duration = _histogram(telemetry.DURATION, registry)
        self._first_token = _histogram(telemetry.FIRST_TOKEN, registry)
        self._overhead = _histogram(telemetry.OVERHEAD, registry)
        self._tokens = _counter(telemetry.TOKENS, registry)
        self._attempt_failures = _counter(telemetry.ATTEMPT_FAILURES, registry)
        self._queue_wait = _histogram(telemetry.QUEUE_WAIT, registry)
        self._refusals = _counter(telemetry.REFUSALS, registry)
        self._lookups = _counter(telemetry.CACHE_LOOKUPS, registry)
        self._stores = _counter(telemetry.CACHE_STORES, registry)
        self._restarts = _counter(telemetry.WORKER_RESTARTS, registry)
        self._loads = _counter(telemetry.MODEL_LOADS, registry)
        self._load_seconds = _histogram(telemetry.LOAD_SECONDS, registry)
        self._evictions = _counter(telemetry.EVICTIONS, registry)
        self._retries = _counter(telemetry.RETRIES, registry)
        self._hedges = _counter(telemetry.HEDGES, registry)
        self._reloads = _counter(telemetry.CONFIG_RELOADS, registry)
        self._config = _gauge(telemetry.CONFIG, registry)
        self._config_loaded = _gauge(telemetry.CONFIG_LOADED, registry)
        self._series: dict[str, dict[tuple[_Instrument, tuple[str, ...]], _Instrument]] = {}
        """The series of each name, by instrument and further labels, so that they end without a look at all others."""

    def know(self, names: Iterable[str]) -> None:
        """From now on these are the names that may become labels. The series of others that were known end."""
        before, self._known = self._known, set(names)
        for name in before - self._known:
            self._end(name)

    def forget(self, name: str) -> None:
        """This is none of the names any more; its series end."""
        self._known.discard(name)
        self._end(name)

    def _end(self, name: str) -> None:
        for instrument, more in self._series.pop(name, ()):
            instrument.remove(name, *more)

    def _of(self, instrument: _InstrumentT, name: str, *more: str) -> _InstrumentT:
        """The series of a model or deployment, whose label is the first one, and of `more` labels."""
        name = name if name in self._known else telemetry.OTHER
        series = self._series.setdefault(name, {})
        found = series.get((instrument, more))
        if found is None:
            found = series[instrument, more] = instrument.labels(name, *more)
        return cast("_InstrumentT", found)

    def config_loaded(self, digest: str, at: float) -> None:
        """A configuration came into force, `at` in Unix time."""
        self._config.clear()
        self._config.labels(digest).set(1)
        self._config_loaded.set(at)

    def config_reloaded(self, result: str) -> None:
        """A reload is over: `changed`, `unchanged`, `rejected` or `failed`."""
        self._reloads.labels(result).inc()

    def call_begun(self) -> None:
        """A call has come in."""
        self._in_flight.inc()

    def call_ended(self, model: str, cache: str, outcome: str, timing: Timing, usage: Usage) -> None:
        """A call is over: `outcome` is `ok` or an error's reason. Times count for whole answers only."""
        self._in_flight.dec()
        self._of(self._requests, model, cache, outcome).inc()
        if outcome == "ok":
            self._of(self._duration, model).observe(timing.total_s)
            self._of(self._first_token, model).observe(timing.first_token_s)
            self._of(self._overhead, model).observe(timing.router_overhead_s)
            self._of(self._tokens, model, "prompt").inc(usage.prompt_tokens)
            self._of(self._tokens, model, "completion").inc(usage.completion_tokens)

    def attempt_failed(self, deployment: str, reason: str) -> None:
        """One attempt of a call has failed."""
        self._of(self._attempt_failures, deployment, reason).inc()

    def queued(self, deployment: str, wait_s: float) -> None:
        """A call got a permit, after `wait_s` seconds; 0 where one was free."""
        self._of(self._queue_wait, deployment).observe(wait_s)

    def refused(self, deployment: str, refusal: str) -> None:
        """A call got no permit; why is one of `polyroute.routing.permits.Refusal`."""
        self._of(self._refusals, deployment, refusal).inc()

    def cache_lookup(self, model: str, result: str) -> None:
        """The cache was asked: `hit`, `miss` or `error`."""
        self._of(self._lookups, model, result).inc()

    def cache_store(self, model: str, result: str) -> None:
        """An answer was offered to the cache: `stored` or `refused`."""
        self._of(self._stores, model, result).inc()

    def worker_restarted(self, model: str) -> None:
        """A worker process died and is being replaced."""
        self._of(self._restarts, model).inc()

    def model_loaded(self, model: str, outcome: str, took_s: float) -> None:
        """A load of one of a model's replicas has ended: `outcome` is `ok` or an error's reason."""
        self._of(self._loads, model, outcome).inc()
        if outcome == "ok":
            self._of(self._load_seconds, model).observe(took_s)

    def model_evicted(self, model: str) -> None:
        """An idle replica of a model has left for another model's sake."""
        self._of(self._evictions, model).inc()

    def watch_memory(self, memory: Callable[[], Iterable[MemoryView]]) -> None:
        """Reads what local models hold of each device at every scrape."""
        self.registry.register(_MemoryHeld(memory))

    def retried(self, deployment: str, outcome: str) -> None:
        """A call was tried again at a replica of `deployment`, or might have been."""
        self._of(self._retries, deployment, outcome).inc()

    def hedged(self, deployment: str, outcome: str) -> None:
        """A slow call was given to a second replica of `deployment`, or might have been."""
        self._of(self._hedges, deployment, outcome).inc()

    def watch(self, models: Callable[[], Iterable[ModelView]]) -> None:
        """Reads the state of `models`, which are no routes, at every scrape."""
        self.registry.register(_States(models))
        self.registry.register(_Replicas(models))


class _States(Collector):
    """Gauges that are read, not counted."""

    def __init__(self, models: Callable[[], Iterable[ModelView]]) -> None:
        self._models = models

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return [_family(metric) for metric in _READ]

    def collect(self) -> Iterator[GaugeMetricFamily]:
        permits, limits, queued, queue_limits, states, replicas = self.describe()
        for model in self._models():
            permits.add_metric([model.id], model.in_flight)
            limits.add_metric([model.id], model.max_concurrency)
            queued.add_metric([model.id], model.queued)
            queue_limits.add_metric([model.id], model.max_queue)
            for state in ModelState:
                if state is not ModelState.UNSPECIFIED:
                    states.add_metric([model.id, state.name.lower()], float(model.status.state is state))
            if model.type == "local":
                for state, count in Counted(replica.state for replica in model.status.replicas).items():
                    replicas.add_metric([model.id, state.name.lower()], count)
        yield from (permits, limits, queued, queue_limits, states, replicas)


_READ = (
    telemetry.PERMITS,
    telemetry.PERMIT_LIMIT,
    telemetry.QUEUED,
    telemetry.QUEUE_LIMIT,
    telemetry.MODEL_STATE,
    telemetry.REPLICAS,
)


class _MemoryHeld(Collector):
    """The memory of local models, read as it is."""

    def __init__(self, memory: Callable[[], Iterable[MemoryView]]) -> None:
        self._memory = memory

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return [_family(metric) for metric in (telemetry.MEMORY_HELD, telemetry.MEMORY_BUDGET)]

    def collect(self) -> Iterator[GaugeMetricFamily]:
        held, budget = self.describe()
        for view in self._memory():
            held.add_metric([view.device], view.held_bytes)
            if view.budget_bytes is not None:
                budget.add_metric([view.device], view.budget_bytes)
        yield from (held, budget)


_REPLICA_GAUGES = (telemetry.REPLICA_IN_FLIGHT, telemetry.REPLICA_WEIGHT, telemetry.REPLICA_BREAKER)
_BREAKER_STATES = ("closed", "open", "half_open")


class _Replicas(Collector):
    """What the replicas there are now say of themselves; one that is gone leaves no series behind."""

    def __init__(self, models: Callable[[], Iterable[ModelView]]) -> None:
        self._models = models

    def describe(self) -> Iterable[MetricFamily]:
        return [*map(_family, _REPLICA_GAUGES), _counted(telemetry.EJECTIONS)]

    def collect(self) -> Iterator[MetricFamily]:
        in_flight, weight, breaker = map(_family, _REPLICA_GAUGES)
        ejections = _counted(telemetry.EJECTIONS)
        for model in self._models():
            # Where one of a name leaves while another has come, the one that has come counts.
            for name, replica in {r.name: r for r in reversed(model.status.replicas)}.items():
                in_flight.add_metric([model.id, name], replica.in_flight)
                if not replica.breaker:
                    continue
                weight.add_metric([model.id, name], replica.weight)
                ejections.add_metric([model.id, name], replica.ejections)
                for state in _BREAKER_STATES:
                    breaker.add_metric([model.id, name, state], float(replica.breaker == state))
        yield from (in_flight, weight, breaker, ejections)


def _counted(metric: Metric) -> CounterMetricFamily:
    return CounterMetricFamily(metric.name, metric.help, labels=metric.labels)


def _family(metric: Metric) -> GaugeMetricFamily:
    return GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)


def _counter(metric: Metric, registry: CollectorRegistry) -> Counter:
    return Counter(metric.name, metric.help, metric.labels, registry=registry)


def _gauge(metric: Metric, registry: CollectorRegistry) -> Gauge:
    return Gauge(metric.name, metric.help, metric.labels, registry=registry)


def _histogram(metric: Metric, registry: CollectorRegistry) -> Histogram:
    return Histogram(metric.name, metric.help, metric.labels, registry=registry, buckets=metric.buckets)
