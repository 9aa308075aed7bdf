"""The one object that everything in the router tells what happened, for `/metrics`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from prometheus_client import CollectorRegistry

from polyroute.core import telemetry
from polyroute.core.event import Route, Timing, Usage
from polyroute.routing.metrics.calls import Calls
from polyroute.routing.metrics.engines import Engines
from polyroute.routing.metrics.instruments import counter, gauge, histogram
from polyroute.routing.metrics.models import MemoryHeld, States
from polyroute.routing.metrics.replicas import Replicas
from polyroute.routing.metrics.rollouts import RolloutStates
from polyroute.routing.metrics.series import Series
from polyroute.routing.metrics.shares import Shares
from polyroute.routing.metrics.steps import Steps
from polyroute.routing.metrics.tiers import Tiers
from polyroute.routing.plan import Rule
from polyroute.routing.views import MemoryView, ModelView, RolloutStanding, TierCounts


class Metrics:
    """The instruments. `known` are the names that may become labels; all others are counted as `_other`.

    Of the replicas and engines of models is told that this process `owns`. What comes with nearly every call is counted
    together with that of others, or before somebody reads it: no reader sees that it has waited.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        known: Collection[str] = (),
        *,
        owns: Callable[[ModelView], bool] = lambda model: True,
    ) -> None:
        self.registry = registry
        self._owns = owns
        self._series = Series(known)
        self._of = self._series.of
        self._calls = Calls(registry, self._series)
        self._steps = Steps(registry, self._series)
        self._build = gauge(telemetry.BUILD, registry)
        self._lag = histogram(telemetry.LOOP_LAG, registry)
        self._rejected = counter(telemetry.REJECTED, registry)
        self._fallbacks = counter(telemetry.FALLBACKS, registry)
        self._refusals = counter(telemetry.REFUSALS, registry)
        self._refreshes = counter(telemetry.CACHE_REFRESHES, registry)
        self._semantic = counter(telemetry.SEMANTIC_LOOKUPS, registry)
        self._semantic_compared = counter(telemetry.SEMANTIC_COMPARED, registry)
        self._restarts = counter(telemetry.WORKER_RESTARTS, registry)
        self._loads = counter(telemetry.MODEL_LOADS, registry)
        self._load_seconds = histogram(telemetry.LOAD_SECONDS, registry)
        self._evictions = counter(telemetry.EVICTIONS, registry)
        self._retries = counter(telemetry.RETRIES, registry)
        self._hedges = counter(telemetry.HEDGES, registry)
        self._reloads = counter(telemetry.CONFIG_RELOADS, registry)
        for result in ("changed", "unchanged", "rejected", "failed"):
            self._reloads.labels(result)
        self._config = gauge(telemetry.CONFIG, registry)
        self._config_loaded = gauge(telemetry.CONFIG_LOADED, registry)
        self._records = counter(telemetry.EXPERIMENT_RECORDS, registry)
        self._shadowed = counter(telemetry.SHADOWED, registry)
        self._shadow_distance = histogram(telemetry.SHADOW_DISTANCE, registry)
        self._records_waiting = gauge(telemetry.RECORDS_WAITING, registry)

    def know(self, names: Iterable[str]) -> None:
        """From now on these are the names that may become labels. The series of others that were known end."""
        with self._calls.later.counted(), self._steps.later.counted():
            self._calls.drop(self._series.know(names))

    def forget(self, name: str) -> None:
        """This is none of the names any more; its series end."""
        with self._calls.later.counted(), self._steps.later.counted():
            self._series.forget(name)
            self._calls.drop([name])

    def config_loaded(self, digest: str, at: float) -> None:
        """A configuration came into force, `at` in Unix time."""
        self._config.clear()
        self._config.labels(digest).set(1)
        self._config_loaded.set(at)

    def config_reloaded(self, result: str) -> None:
        """A reload is over: `changed`, `unchanged`, `rejected` or `failed`."""
        self._reloads.labels(result).inc()

    def built(self, version: str) -> None:
        """This is the version of Polyroute that runs."""
        self._build.labels(version).set(1)

    def loop_late(self, late_s: float) -> None:
        """The event loop was `late_s` seconds late with what was due."""
        self._lag.observe(late_s)

    def call_begun(self) -> None:
        """A call has come in."""
        self._calls.begun()

    def call_ended(
        self, route: Route, outcome: str, timing: Timing, usage: Usage, *, operation: str = "chat", trace_id: str = ""
    ) -> None:
        """A call is over: `outcome` is `ok` or an error's reason. How fast a model was counts for whole answers only.

        `operation` is as of `gen_ai.operation.name`: `chat` or `text_completion`. `trace_id` is that of a recorded
        trace, which becomes an exemplar; empty where nobody could look it up.
        """
        self._calls.ended(route, outcome, timing, usage, operation, trace_id)

    def call_rejected(self, face: str, reason: str) -> None:
        """A call was refused where it came in, at `grpc` or `rest`, and is no other of these counts."""
        self._rejected.labels(face, reason).inc()

    def attempted(self, deployment: str, outcome: str) -> None:
        """One attempt of a call has begun to answer (`ok`), or has failed with an error's reason."""
        self._steps.attempted(deployment, outcome)

    def fell_back(self, deployment: str, cause: str) -> None:
        """A call goes on to another deployment, after an error of this one, whose reason is `cause`."""
        self._of(self._fallbacks, deployment, cause).inc()

    def queued(self, deployment: str, wait_s: float) -> None:
        """A call got a permit, after `wait_s` seconds; 0 where one was free."""
        self._steps.queued(deployment, wait_s)

    def refused(self, deployment: str, refusal: str) -> None:
        """A call got no permit; why is one of `polyroute.routing.permits.Refusal`."""
        self._of(self._refusals, deployment, refusal).inc()

    def cache_lookup(self, model: str, result: str) -> None:
        """The cache was asked: `hit`, `miss`, `coalesced` or `error`."""
        self._steps.cache_lookup(model, result)

    def cache_store(self, model: str, result: str) -> None:
        """An answer was offered to the cache: `stored` or `refused`."""
        self._steps.cache_store(model, result)

    def cache_refreshed(self, model: str, outcome: str) -> None:
        """A stale answer was renewed (`ok`), or was not: `failed` or `skipped`."""
        self._of(self._refreshes, model, outcome).inc()

    def semantic_lookup(self, model: str, result: str) -> None:
        """The semantic tier looked for a near request: `near`, `far`, `refused` or `skipped`."""
        self._of(self._semantic, model, result).inc()

    def semantic_compared(self, model: str, result: str) -> None:
        """A fresh answer was held against the one that would have been served: `equal` or `other`."""
        self._of(self._semantic_compared, model, result).inc()

    def worker_restarted(self, model: str) -> None:
        """A worker process died and is being replaced."""
        self._of(self._restarts, model).inc()

    def model_loaded(self, model: str, outcome: str, took_s: float) -> None:
        """A load of one of a model's replicas has ended: `outcome` is `ok` or an error's reason."""
        self._of(self._loads, model, outcome).inc()
        for may_happen in (self._evictions, self._restarts):
            self._of(may_happen, model).inc(0)  # a rate sees the first one where there was a 0 before
        if outcome == "ok":
            self._of(self._load_seconds, model).observe(took_s)

    def model_evicted(self, model: str) -> None:
        """An idle replica of a model has left for another model's sake."""
        self._of(self._evictions, model).inc()

    def watch_memory(self, memory: Callable[[], Iterable[MemoryView]]) -> None:
        """Reads what local models hold of each device at every scrape."""
        self.registry.register(MemoryHeld(memory))

    def watch_tiers(self, tiers: Callable[[], Iterable[TierCounts]]) -> None:
        """Reads what the tiers of the cache count at every scrape."""
        self.registry.register(Tiers(tiers))

    def retried(self, deployment: str, outcome: str) -> None:
        """A call was tried again at a replica of `deployment`, or might have been."""
        self._of(self._retries, deployment, outcome).inc()

    def hedged(self, deployment: str, outcome: str) -> None:
        """A slow call was given to a second replica of `deployment`, or might have been."""
        self._of(self._hedges, deployment, outcome).inc()

    def record_kept(self, result: str, count: int = 1) -> None:
        """Records of an experiment were `written`, or `dropped`."""
        self._records.labels(result).inc(count)

    def shadowed(self, route: str, deployment: str, result: str, edit_distance: float | None) -> None:
        """A copy of a route's call was `compared` with it, or was not, for the reason `result`.

        `edit_distance` lies in [0, 1], and is None unless both were answered.
        """
        self._series.between(self._shadowed, (route, deployment), (result,)).inc()
        if edit_distance is not None:
            self._series.between(self._shadow_distance, (route, deployment)).observe(edit_distance)

    def watch_records(self, waiting: Callable[[], float]) -> None:
        """Reads how many records wait to be written at every scrape."""
        self._records_waiting.set_function(waiting)

    def watch_rollouts(self, standings: Callable[[], Iterable[RolloutStanding]]) -> None:
        """Reads where rollouts stand at every scrape."""
        self.registry.register(RolloutStates(standings))

    def watch_shares(self, rules: Callable[[], Iterable[Rule]]) -> None:
        """Reads how routes divide their traffic at every scrape."""
        self.registry.register(Shares(rules))

    def watch(self, models: Callable[[], Iterable[ModelView]]) -> None:
        """Reads the state of `models`, which are no routes, at every scrape."""
        self.registry.register(States(models))
        owned = lambda: filter(self._owns, models())  # noqa: E731
        self.registry.register(Replicas(owned))
        self.registry.register(Engines(owned))
