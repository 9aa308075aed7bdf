"""A local model with as many replicas as its calls need: loaded for them, kept for a while, and unloaded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Final, cast

from msgspec import structs

from polyroute.backends.local.claims import Needs
from polyroute.backends.local.deadline import in_time
from polyroute.backends.local.memory import Memory
from polyroute.backends.local.replicas import Make, Replicas, Slot
from polyroute.backends.local.scale import Bounds, Trend, Work, follow, wanted
from polyroute.backends.local.weights import expected
from polyroute.backends.pool import Pool
from polyroute.core.attributes import DEPLOYMENT
from polyroute.core.backend import BackendStatus, Facts, ModelState, Preview, ReplicaStatus, TokenCount
from polyroute.core.call import Call
from polyroute.core.config import LocalConfig, ModelConfig
from polyroute.core.errors import Draining, ModelLoading, NoReplica, Overloaded, PolyrouteError, WorkerDied
from polyroute.core.event import Attempt, Event, Started
from polyroute.core.wait_span import keep_wait

_TICK_S: Final = 1.0
_STALL_S: Final = 300.0
_RETRY_S: Final = (2.0, 10.0)  # bounds of what callers are told to wait for a load


class WarmPool:
    """A `polyroute.core.backend.Backend` over the replicas of one local model.

    `config.warm` says how many there are; `queued` how many calls wait for a permit. A call that finds none ready waits
    for one until its deadline, as long as the load gets on; the load is the model's, not the call's, which may leave.
    One whose worker died before it answered is tried once more. After `unload`, nothing is loaded until a call or
    `load` asks for it, whatever `warm` says. `departure`, `on_load` and `on_evict` are as of `Replicas`. Times are in
    seconds.
    """

    def __init__(
        self,
        config: LocalConfig,
        pool: Pool,
        make: Make,
        memory: Memory,
        *,
        queued: Callable[[], int] = lambda: 0,
        departure: Callable[[], Awaitable[bool]] | None = None,
        on_load: Callable[[str, float], None] = lambda outcome, took_s: None,
        on_evict: Callable[[], None] = lambda: None,
        stall_s: float = _STALL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._bounds = Bounds.of(config)
        self._pool = pool
        self._memory = memory
        self._queued = queued
        self._told_load = on_load
        self._stall_s = stall_s
        self._clock = clock
        self._replicas = Replicas(
            config,
            pool,
            make,
            memory,
            needs=self._needs,
            departure=departure or _nobody_leaves,
            keep=lambda: self._effective.min,
            on_change=self._changed,
            on_load=self._loaded,
            on_evict=on_evict,
            clock=clock,
        )
        self._trend = Trend()
        self._answering = 0
        self._used_at = clock()
        self._last = BackendStatus(ModelState.COLD, version=config.version or "")
        self._load_s = _RETRY_S[0]
        self._news = asyncio.Event()
        self._change = asyncio.Lock()  # one unload at a time
        self._resting = False
        self._draining = False
        self._stopped = False
        self._ticking: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<WarmPool {self._replicas} answering={self._answering}>"

    async def start(self) -> None:
        """Begins to load as many replicas as are to be kept."""
        await self._pool.start()
        self.look()

    async def load(self) -> None:
        """Returns once a replica is warm; raises why none can be. A load that has failed is tried again at once."""
        self._refuse_if_leaving()
        self._replicas.retry_at = self._clock()
        await self._ready(None)

    async def unload(self, grace_s: float) -> None:
        """Lets calls go on for `grace_s` seconds, then ends them and every worker."""
        async with self._change:
            self._resting = self._draining = True
            try:
                await self._replicas.clear(grace_s)
            finally:
                self._draining = False
                self._changed()

    async def stop(self) -> None:
        """Ends calls and workers at once."""
        self._stopped = True
        self._changed()
        if self._ticking is not None:
            self._ticking.cancel()
            await asyncio.wait([self._ticking])
        await self._replicas.clear(0)
        await self._pool.stop()

    def adopt(self, config: ModelConfig) -> None:
        """Takes on how many replicas there are to be, among others: those that lack begin to load now."""
        if isinstance(config, LocalConfig):
            if config.version != self._config.version:
                self._last = replace(self._last, version=config.version or "")
            self._config = config
            self._bounds = Bounds.of(config)
            self._pool.adopt(config)
            self._replicas.adopt(config)
            self.look()

    def stream(self, call: Call) -> AsyncIterator[Event]:
        """Answers a call; raises `ModelLoading` where no replica is ready and the call is not to wait for one."""
        return self._stream(call)

    async def _stream(self, call: Call) -> AsyncGenerator[Event, None]:
        failed: tuple[Attempt, ...] = ()
        while True:
            await self._ready_for(call)
            started = False
            try:
                async with aclosing(self._answer(call)) as events:
                    async for event in events:
                        if isinstance(event, Started):
                            started = True
                            event = Started(structs.replace(event.route, attempts=(*failed, *event.route.attempts)))
                        yield event
                return
            except (WorkerDied, ModelLoading, NoReplica) as error:
                if started or failed or not self._may_repeat(error):
                    raise error.after((*failed, *error.attempts), error.message) from error
                failed = error.attempts or (Attempt("", reason=error.reason, message=error.message),)

    def _may_repeat(self, error: PolyrouteError) -> bool:
        """Whether the call is made once more: what killed a worker may be the call, so that counts as a retry."""
        if not isinstance(error, WorkerDied):
            return True  # no worker has seen the call
        deaths = sum(attempt.reason == WorkerDied.reason for attempt in error.attempts)
        return deaths < 2 and self._pool.may_repeat()

    async def _answer(self, call: Call) -> AsyncGenerator[Event, None]:
        replica = ""
        self._answering += 1
        try:
            async with aclosing(cast("AsyncGenerator[Event, None]", self._pool.stream(call))) as events:
                async for event in events:
                    if isinstance(event, Started):
                        replica = event.route.replica
                        self._replicas.used(replica)
                    yield event
        finally:
            self._answering -= 1
            self._used_at = self._clock()
            self._replicas.used(replica)
            self._memory.changed()

    async def count_tokens(self, call: Call) -> TokenCount:
        """Counts by a replica; waits for one as `stream` does."""
        await self._ready(call)
        self._used_at = self._clock()
        return await self._pool.count_tokens(call)

    def preview(self, call: Call) -> Preview:
        """The replica that would get the call, and why; none while none is warm. Raises `NoReplica`, loads nothing."""
        if not self._replicas.warm:
            return Preview("", "no replica is loaded")
        return self._pool.preview(call)

    def status(self) -> BackendStatus:
        """The readiest replica's state; what is known of the model stays known while it is cold."""
        facts = self.facts()
        pooled = self._pool.status() if self._replicas.serving else self._last
        in_pool = {replica.name: replica for replica in pooled.replicas}
        replicas = tuple(_told(slot, in_pool) for slot in tuple(self._replicas.slots))
        first = min(replicas, key=lambda r: r.state.readiness, default=ReplicaStatus("", ModelState.COLD))
        refusal = self._refusal(first.state)
        return replace(
            pooled,
            state=facts.state,
            detail=first.detail if refusal is None else refusal.message,
            version=facts.version,
            ready_since=facts.ready_since,
            max_sequences=facts.max_sequences,
            replicas=replicas,
        )

    def facts(self) -> Facts:
        """As in `status`."""
        states = [slot.state for slot in tuple(self._replicas.slots) if slot.phase != "serving"]
        if self._replicas.serving:
            pooled = self._pool.facts()
            states.append(pooled.state)
        else:
            pooled = Facts(ModelState.COLD, self._last.version, self._last.greedy_default)
        state = self._state(min(states, key=lambda state: state.readiness, default=ModelState.COLD))
        return replace(
            pooled,
            state=state,
            max_sequences=pooled.max_sequences or self._seats,
            ready_since=pooled.ready_since if state is ModelState.WARM else 0.0,
        )

    def look(self) -> None:
        """Decides how many replicas there should be now, and begins what leads there."""
        if self._draining or self._stopped:
            return
        now, up, bounds = self._clock(), len(self._replicas.up), self._effective
        work = Work(self._answering, self._queued(), self._seats or 1, self._used_at)
        if self._replicas.waiting or len(self._replicas.warm) < up:
            # what is being loaded is to show first what it changes
            work = replace(work, in_flight=min(work.in_flight, up * work.seats), queued=0, used_at=now)
        self._trend = follow(self._trend, up, work, now)
        target = wanted(self._trend, bounds, now)
        if target > up and now >= self._replicas.retry_at:
            for _ in range(target - up):
                self._replicas.begin(insist=up < bounds.min)
        elif target < up and self._replicas.warm:
            leaving = min(self._replicas.warm, key=lambda slot: (slot.status().in_flight, -slot.index))
            self._replicas.retire(leaving)
        self._keep_looking()

    def _keep_looking(self) -> None:
        if self._ticking is None or self._ticking.done():
            self._ticking = asyncio.create_task(self._tick(), name=f"warm pool of {self._config.id}")

    async def _tick(self) -> None:
        """Looks again and again, for as long as there is anything to look after."""
        while self._replicas.slots or self._effective.min:
            await asyncio.sleep(_TICK_S)
            self.look()

    async def _ready_for(self, call: Call) -> None:
        """As `_ready`; a wait is a span of a call that is sampled."""
        span = call.trace.span
        if span is None or self._replicas.warm:
            await self._ready(call)
            return
        begun, model = self._clock(), {DEPLOYMENT: self._config.id}
        try:
            await self._ready(call)
        except BaseException as error:
            keep_wait(span, "load", self._clock() - begun, model, error)
            raise
        keep_wait(span, "load", self._clock() - begun, model)

    async def _ready(self, call: Call | None) -> None:
        """Returns once a replica is warm; sees to it that one is being loaded."""
        self._replicas.waiting += 1
        try:
            while not self._replicas.warm:
                self._refuse_if_leaving()
                if (error := self._replicas.refused()) is not None:
                    raise error
                self._resting = False
                if not self._replicas.up:
                    self._replicas.begin(insist=True)
                    self._keep_looking()
                if call is not None and not call.wait_for_load:
                    raise self._loading()
                await self._wait(call)
        finally:
            self._replicas.waiting -= 1

    async def _wait(self, call: Call | None) -> None:
        """Waits for news of the replicas, as long as the load gets on and the call has time."""
        try:
            async with asyncio.timeout(self._stall_s):
                news = self._news.wait()
                await (news if call is None else in_time(call, news, f"while `{self._config.id}` was being loaded"))
        except TimeoutError:
            got_on = max((slot.progressed_at for slot in self._replicas.up), default=self._clock())
            if self._clock() - got_on >= self._stall_s:
                raise self._loading(f"; no progress for {self._stall_s:g} s") from None

    def _loading(self, more: str = "") -> ModelLoading:
        begun = min((slot.begun for slot in self._replicas.up), default=self._clock())
        left_s = self._load_s - (self._clock() - begun)
        doing = next((detail for slot in self._replicas.up if (detail := slot.status().detail)), "about to begin")
        return ModelLoading(
            f"`{self._config.id}` is being loaded: {doing}{more}",
            retry_after_s=min(max(left_s, _RETRY_S[0]), _RETRY_S[1]),
        )

    @property
    def _effective(self) -> Bounds:
        return replace(self._bounds, min=0) if self._resting or self._stopped else self._bounds

    @property
    def _seats(self) -> int:
        """How many calls one replica answers at once; 0 when not known."""
        return self._config.max_sequences or self._last.max_sequences

    def _refusal(self, first: ModelState) -> PolyrouteError | None:
        """Why no load succeeds, where the state is that one's and not `first`, which the readiest replica is in."""
        return None if self._draining or first is ModelState.WARM else self._replicas.refusal

    def _state(self, first: ModelState) -> ModelState:
        """The state of the whole. After a failed load it is cold again once another may be tried."""
        if (refusal := self._refusal(first)) is not None:
            may_try = isinstance(refusal, Overloaded) or self._replicas.refused() is None
            cold = may_try and not self._replicas.up
            return ModelState.COLD if cold else ModelState.FAILED
        return ModelState.DRAINING if self._draining else first

    def _changed(self) -> None:
        """Wakes who waits: there is a replica, or none is to come, or another try has to be made."""
        if warm := self._replicas.warm:
            self._last = replace(self._pool.status(), max_sequences=warm[0].seats, replicas=())
        self._news.set()
        self._news = asyncio.Event()

    def _loaded(self, outcome: str, took_s: float) -> None:
        if outcome == "ok":
            self._load_s = took_s
        self._told_load(outcome, took_s)

    def _needs(self) -> Needs:
        if measured := self._replicas.weights_bytes:
            return Needs(measured, self._config.kv_cache_memory)
        return expected(self._config)

    def _refuse_if_leaving(self) -> None:
        if self._stopped or self._draining:
            doing = "stopped" if self._stopped else "unloaded"
            raise Draining(
                f"`{self._config.id}` is being {doing}", retry_after_s=None if self._stopped else _RETRY_S[0]
            )


async def _nobody_leaves() -> bool:
    """No memory is about to be given back."""
    return False


def _told(slot: Slot, in_pool: Mapping[str, ReplicaStatus]) -> ReplicaStatus:
    """A replica's status: as the pool sees one that serves, else as it is itself."""
    if slot.phase == "serving":
        return in_pool.get(slot.name) or slot.status()
    return replace(slot.status(), state=ModelState.DRAINING) if slot.phase == "leaving" else slot.status()
