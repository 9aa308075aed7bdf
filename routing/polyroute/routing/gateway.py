"""The router as its callers see it: one object that answers calls and says how everything stands."""

from __future__ import annotations

import asyncio
import re
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from dataclasses import replace
from typing import Final

from msgspec import structs

from polyroute.core.backend import BackendStatus, ModelState, Preview, Previewing, Unloading
from polyroute.core.call import Call
from polyroute.core.config import LimitsConfig
from polyroute.core.errors import InvalidArgument, NoReplica, PolyrouteError, clip
from polyroute.core.event import Event, Whole
from polyroute.core.trace import Begin, untraced
from polyroute.core.validate import is_model_name
from polyroute.routing.cache.answers import Answers
from polyroute.routing.experiments.records import Recorder
from polyroute.routing.experiments.shadow.shadows import Shadows
from polyroute.routing.layers.intake import Intake
from polyroute.routing.layers.observed import Observed
from polyroute.routing.layers.recorded import Recorded
from polyroute.routing.metrics import Metrics
from polyroute.routing.plan import Rule
from polyroute.routing.registry import Deployment, Snapshot
from polyroute.routing.router import Router
from polyroute.routing.views import (
    CacheStats,
    ModelCacheStats,
    ModelTierStats,
    ModelTokenCount,
    ModelView,
    Plan,
    PlannedAttempt,
    PlannedShadow,
    VariantView,
)

_AT_A_TIME: Final = 64
_KEY: Final = re.compile("[0-9a-f]{64}")


class Gateway:
    """Answers calls over one registry snapshot. gRPC, REST and the admin service are faces of this.

    `recorder` is told of each call that takes part in an experiment, and `shadows` makes their copies; `steered` gives
    a registry the weights that its rollouts have now.
    `begin` and `content_chars` are as of `polyroute.routing.layers.observed.Observed`.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        answers: Answers,
        metrics: Metrics,
        *,
        recorder: Recorder | None = None,
        shadows: Shadows | None = None,
        steered: Callable[[Snapshot], Snapshot] = lambda snapshot: snapshot,
        begin: Begin = untraced,
        content_chars: int = 0,
    ) -> None:
        self._snapshot = snapshot
        self._steered = steered
        self._answers = answers
        self._metrics = metrics
        recorded = None if recorder is None else Recorded(recorder, shadows=shadows)
        self._intake = Intake()
        self._observed = Observed(metrics, intake=self._intake, begin=begin, content_chars=content_chars)
        self._router = Router(lambda: self._snapshot, metrics, self._observed, recorded=recorded)
        self._loads: set[asyncio.Task[None]] = set()
        metrics.know(snapshot.rules)
        metrics.watch(self._deployed)
        metrics.watch_shares(lambda: self._snapshot.rules.values())

    @property
    def snapshot(self) -> Snapshot:
        """The registry in force."""
        return self._snapshot

    def swap(self, snapshot: Snapshot, leaving: Collection[str] = ()) -> None:
        """Puts another registry in force; calls in flight go on with the one that they began with.

        Metrics tell of its names and of the models that are `leaving`, each until `forget`, and of no others any more.
        """
        self._snapshot = self._steered(snapshot)
        self._metrics.know([*snapshot.rules, *leaving])

    def steer(self) -> None:
        """Brings the registry in force to the weights that rollouts have now."""
        self._snapshot = self._steered(self._snapshot)

    def forget(self, id: str) -> None:
        """A model has left: metrics tell of it no more, unless the name is in force again."""
        if id not in self._snapshot.rules:
            self._metrics.forget(id)

    @property
    def limits(self) -> LimitsConfig:
        """Largest input that is accepted now."""
        return self._snapshot.limits

    @property
    def default_model(self) -> str:
        """Model or route for requests that name none; empty where there is none."""
        return self._snapshot.default

    @property
    def sticky_headers(self) -> frozenset[str]:
        """The headers, or metadata, that some route is keyed on, in small letters: calls carry these along."""
        return self._snapshot.sticky_headers

    @property
    def draining(self) -> bool:
        """Whether new calls are refused."""
        return self._intake.closed

    def generate(self, call: Call) -> AsyncIterator[Event]:
        """Answers a call: `Started` with the complete route, `Token`s, `Finished` with the complete timing."""
        return self._router(call)

    def at_hand(self, call: Call) -> Whole | None:
        """The whole answer of a call, where it is stored in memory: then the call is over, as if it was generated.

        For who gives answers in one piece, and asks this before `generate`; None says nothing but that. Never waits.
        """
        return self._router.at_hand(call)

    def refused(self, call: Call, error: PolyrouteError) -> None:
        """Tells of a call that was refused before it could be made: it counts, and leaves its line and its span.

        Of a model that cannot be the name of one nothing is told.
        """
        if not is_model_name(call.request.model):
            call = structs.replace(call, request=structs.replace(call.request, model=""))
        self._observed.refused(call, error)

    async def count_tokens(self, call: Call) -> ModelTokenCount:
        """Counts the tokens of the call's input by the model that would answer it first."""
        snapshot = self._snapshot
        first = snapshot.decide(call).steps[0]
        deployment = snapshot.deployments[first.deployment]
        with snapshot.occupied((deployment.id,)):
            count = await deployment.backend.count_tokens(call)
        version = deployment.backend.facts().version
        return ModelTokenCount(count.prompt_tokens, count.context_length, deployment.id, version)

    def models(self, after: str = "", most: int | None = None) -> tuple[ModelView, ...]:
        """The models and named routes by ID: all, or those `after` an ID, `most` of them at most."""
        snapshot = self._snapshot
        first = bisect_right(snapshot.names, after)
        last = None if most is None else first + most
        return tuple(self._view(snapshot.rules[name]) for name in snapshot.names[first:last])

    def find(self, name: str) -> ModelView | None:
        """The model or route of that name, or None."""
        rule = self._snapshot.rules.get(name)
        return None if rule is None else self._view(rule)

    def _deployed(self) -> Iterator[ModelView]:
        """The models without the routes, in no order."""
        snapshot = self._snapshot
        return (self._view(snapshot.rules[id]) for id in snapshot.deployments)

    def model(self, name: str) -> ModelView:
        """One model or route (empty: the default); raises `UnknownModel`."""
        return self._view(self._snapshot.resolve(name))

    def explain(self, call: Call) -> Plan:
        """The plan that a call would get; runs nothing."""
        snapshot = self._snapshot
        decision = snapshot.decide(call)
        attempts = []
        for step in decision.steps:
            deployment = snapshot.deployments[step.deployment]
            facts = deployment.backend.facts()
            preview = _preview(deployment, call)
            attempts.append(
                PlannedAttempt(
                    deployment=deployment.id,
                    model=deployment.id,
                    version=facts.version,
                    state=facts.state,
                    variant=step.variant,
                    fallback=step.fallback,
                    cache=deployment.shelf.use(call).reason,
                    replica=preview.replica,
                    replica_reason=preview.reason,
                )
            )
        return Plan(
            requested=decision.requested,
            attempts=tuple(attempts),
            shadows=tuple(PlannedShadow(shadow.deployment, shadow.sample) for shadow in decision.shadows),
            reasons=decision.reasons,
            sticky_by=decision.sticky_by,
            hash_point=decision.hash_point,
            probability=decision.probability,
        )

    def ready(self) -> bool:
        """Whether the default model answers; where there is no default, whether any model does."""
        if self.draining:
            return False
        if not self.default_model:
            return any(d.backend.facts().state is ModelState.WARM for d in self._snapshot.deployments.values())
        return self.model("").status.state is ModelState.WARM

    async def load(self, model_id: str, *, wait: bool) -> ModelView:
        """Loads a model now; with `wait`, returns once it is warm or raises why it cannot be."""
        deployment = self._snapshot.deployment(model_id)
        loading = asyncio.create_task(deployment.backend.load())
        if wait:
            await loading
        else:
            self._loads.add(loading)
            loading.add_done_callback(self._loaded)
            await asyncio.sleep(0)  # so that the answer says LOADING
        return self.model(model_id)

    def _loaded(self, loading: asyncio.Task[None]) -> None:
        self._loads.discard(loading)
        if not loading.cancelled():
            loading.exception()  # shows in the model's state

    async def unload(self, model_id: str, grace_s: float) -> ModelView:
        """Lets a local model finish its calls, for `grace_s` seconds at most, then frees its memory."""
        deployment = self._snapshot.deployment(model_id)
        if not (deployment.local and isinstance(deployment.backend, Unloading)):
            raise InvalidArgument("model", f"`{model_id}` is remote; only local models can be unloaded")
        await deployment.backend.unload(grace_s)
        return self.model(model_id)

    async def cache_stats(self, model_id: str = "") -> CacheStats:
        """What the cache holds; of one model where one is named (raises `UnknownModel`)."""
        chosen = self._chosen(model_id)
        stats = await self._answers.stats()
        return CacheStats(stats.tiers, tuple(_cache_stats(each, stats.models.get(each.id, ())) for each in chosen))

    async def invalidate_cache(self, model_id: str = "", key: str = "") -> int:
        """Removes stored answers: of one model, or of all; or the one with this key. Returns how many.

        A key is that of `Route.cache_key`; raises `InvalidArgument` for what is none.
        """
        self._chosen(model_id)
        if key and not _KEY.fullmatch(key):
            raise InvalidArgument("key", f"`{clip(key, 80)}` is none; a key has 64 hexadecimal digits in small letters")
        return await (self._answers.forget(key) if key else self._answers.invalidate(model_id))

    async def start(self) -> None:
        """Opens the cache, and begins to load or to reach every model, in the background."""
        await self._answers.start()
        for place, deployment in enumerate(self._snapshot.deployments.values()):
            if place % _AT_A_TIME == 0:
                await asyncio.sleep(0)  # who asks meanwhile whether the server lives is answered
            await deployment.backend.start()

    async def drain(self, grace_s: float) -> bool:
        """Refuses new calls and waits, `grace_s` seconds at most, for those in flight; says whether all have ended."""
        return await self._intake.drain(grace_s)

    def cut(self) -> None:
        """Ends the calls that are still in flight with `Draining`."""
        self._intake.cut()

    async def close(self) -> None:
        """Stops every backend and the cache. Not to be used afterwards."""
        deployments = self._snapshot.deployments.values()
        for loading in self._loads:
            loading.cancel()
        await asyncio.gather(*self._loads, return_exceptions=True)
        await asyncio.gather(*(deployment.cached.close() for deployment in deployments))
        await asyncio.gather(*(deployment.backend.stop() for deployment in deployments))
        await self._answers.close()

    def _chosen(self, model_id: str) -> tuple[Deployment, ...]:
        if model_id:
            return (self._snapshot.deployment(model_id),)
        return tuple(deployment for _, deployment in sorted(self._snapshot.deployments.items()))

    def _view(self, rule: Rule) -> ModelView:
        if rule.direct:
            deployment = self._snapshot.deployments[rule.id]
            return ModelView(
                id=rule.id,
                type=deployment.config.type,
                status=deployment.backend.status(),
                in_flight=deployment.permits.in_flight,
                queued=deployment.permits.queued,
                max_concurrency=deployment.permits.max_concurrency,
                max_queue=deployment.permits.max_queue,
                runs=len(deployment.cached.ledger.flights),
                default=rule.id == self.default_model,
            )
        readiest = self._readiest(rule)
        return ModelView(
            id=rule.id,
            type="route",
            status=BackendStatus(
                readiest.state,
                readiest.detail,
                context_length=readiest.context_length,
                chat=readiest.chat,
                ready_since=readiest.ready_since,
                defaults=readiest.defaults,
            ),
            default=rule.id == self.default_model,
            variants=tuple(VariantView(v.name, v.deployment, rule.share(v)) for v in rule.variants),
            fallback=rule.fallback,
        )

    def _readiest(self, rule: Rule) -> BackendStatus:
        """The status of the readiest variant, or of the readiest fallback where no variant is warm and that one is."""
        arms = [self._snapshot.deployments[variant.deployment].backend.status() for variant in rule.variants]
        readiest = min(arms, key=lambda status: status.state.readiness)
        if readiest.state is ModelState.WARM:
            return readiest
        for name in rule.fallback:
            behind = self._readiest(self._snapshot.rules[name])
            if behind.state is ModelState.WARM:
                return replace(behind, detail=f"answered by the fallback `{name}`: {readiest.detail}".rstrip(": "))
        return readiest


def _cache_stats(deployment: Deployment, tiers: tuple[ModelTierStats, ...]) -> ModelCacheStats:
    semantic = None if deployment.semantic is None else deployment.semantic.stats()
    return replace(deployment.cached.ledger.stats, tiers=tiers, semantic=semantic)


def _preview(deployment: Deployment, call: Call) -> Preview:
    if not isinstance(deployment.backend, Previewing):
        return Preview("", "")
    try:
        return deployment.backend.preview(call)
    except NoReplica as error:
        return Preview("", error.message)
