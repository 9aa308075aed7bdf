"""The replicas of one local model: brought up one by one within the memory budget, and let go."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

import structlog

from polyroute.backends.local.backoff import backoff
from polyroute.backends.local.claims import Footprint, Needs, Standing
from polyroute.backends.local.memory import Holding, Memory
from polyroute.backends.pool import Pool
from polyroute.core.backend import Backend, ModelState, ReplicaStatus
from polyroute.core.config import LocalConfig
from polyroute.core.errors import ModelFailed, Overloaded, PolyrouteError

_log = structlog.get_logger(__name__)

_RELOAD_S: Final = (5.0, 300.0)  # first and longest wait before a failed load is tried again; doubles between
_ROOM_S: Final = 5.0  # the wait where nothing was wrong but that there was no room
_GRACE_S: Final = 3600.0  # what a replica gets for its calls that leaves of the router's own accord


class Replica(Backend, Protocol):
    """A backend that can be one of several; `LocalBackend` is."""

    @property
    def footprint(self) -> Footprint | None:
        """The memory that it takes; None until it is warm."""

    @property
    def progressed_at(self) -> float:
        """When its load last got on, on the clock of `time.monotonic`."""


class Make(Protocol):
    """Makes a replica of that name for that device; `on_change` is to be called whenever its state may be another."""

    def __call__(
        self, config: LocalConfig, name: str, device: str, kv_cache_most: int | None, on_change: Callable[[], None]
    ) -> Replica: ...


@dataclass(eq=False, slots=True)
class Slot:
    """The place of one replica, from before its load until its memory is free; `seats` is how many calls it answers at
    once, 0 until it is known."""

    index: int
    name: str
    begun: float
    used_at: float
    phase: Literal["loading", "serving", "leaving"] = "loading"
    backend: Replica | None = None
    holding: Holding | None = None
    seats: int = 0
    task: asyncio.Task[None] | None = field(default=None, repr=False)

    @property
    def state(self) -> ModelState:
        """As of `polyroute.core.backend.ModelState`."""
        if self.phase == "leaving":
            return ModelState.DRAINING
        return ModelState.LOADING if self.backend is None else self.backend.facts().state

    @property
    def progressed_at(self) -> float:
        """When its load last got on."""
        return self.begun if self.backend is None else max(self.begun, self.backend.progressed_at)

    def status(self) -> ReplicaStatus:
        """How the replica itself says that it is."""
        if self.backend is None:
            return ReplicaStatus(self.name, ModelState.LOADING, "waiting for memory")
        return self.backend.status().replicas[0]


class Replicas:
    """Those of `pool`, and those on their way in and out. Which there should be is `WarmPool`'s to say.

    `departure` is awaited where there is no memory for a load: it returns True once a model that is leaving for good
    has given its own back, False at once where none is leaving. `needs` says what another replica will take of a
    device; `keep` how many are not to be evicted. `on_change` is called when one has become ready, has failed or has
    left; `on_load` with how each load ended (`ok` or an error's reason) and how many seconds it took; `on_evict` for
    each that left for another model's sake.
    """

    def __init__(
        self,
        config: LocalConfig,
        pool: Pool,
        make: Make,
        memory: Memory,
        *,
        needs: Callable[[], Needs],
        departure: Callable[[], Awaitable[bool]],
        keep: Callable[[], int],
        on_change: Callable[[], None],
        on_load: Callable[[str, float], None],
        on_evict: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._model = config.id
        self._pool = pool
        self._make = make
        self._memory = memory
        self._needs = needs
        self._departure = departure
        self._keep = keep
        self._on_change = on_change
        self._on_load = on_load
        self._on_evict = on_evict
        self._clock = clock
        self._failures = 0
        self._told = ""
        self.slots: list[Slot] = []
        self.waiting = 0
        """Calls that wait for a replica: the one that comes is not idle."""
        self.refusal: PolyrouteError | None = None
        """Why the last load failed, where no replica serves."""
        self.retry_at = 0.0
        self.weights_bytes = 0
        """What a replica was measured to take, without keys and values; 0 until then."""

    def __repr__(self) -> str:
        return f"<Replicas {self._model} {[(slot.name, slot.phase) for slot in self.slots]}>"

    @property
    def up(self) -> list[Slot]:
        """Those that serve or are being loaded."""
        return [slot for slot in self.slots if slot.phase != "leaving"]

    @property
    def serving(self) -> list[Slot]:
        """Those of the pool; one whose worker has died and is being replaced stays among them."""
        return [slot for slot in self.slots if slot.phase == "serving"]

    @property
    def warm(self) -> list[Slot]:
        """Those that answer at once."""
        return [slot for slot in self.serving if slot.state is ModelState.WARM]

    def adopt(self, config: LocalConfig) -> None:
        """Those on their way in take it on, and those to come are made with it; the pool sees to those that serve."""
        self._config = config
        for slot in self.slots:
            if slot.phase == "loading" and slot.backend is not None:
                slot.backend.adopt(config)

    def refused(self) -> PolyrouteError | None:
        """The error for a call, where the last load failed and it is too early for another."""
        left_s = self.retry_at - self._clock()
        if self.refusal is None or self.up or left_s <= 0:
            return None
        error = self.refusal.after((), self.refusal.message)
        error.retry_after_s = left_s
        return error

    def begin(self, *, insist: bool) -> None:
        """Begins to load another replica; with `insist`, idle replicas of other models leave where it takes that."""
        taken = {slot.index for slot in self.slots}
        index = next(index for index in range(len(taken) + 1) if index not in taken)
        now = self._clock()
        slot = Slot(index, f"{self._model}#{index}", now, now)
        self.slots.append(slot)
        slot.task = asyncio.create_task(self._bring_up(slot, insist), name=f"load of {slot.name}")

    def retire(self, slot: Slot, grace_s: float = _GRACE_S) -> asyncio.Task[None]:
        """Takes a serving replica out of the pool, and ends it when its calls have ended or the grace is over."""
        slot.phase = "leaving"
        slot.task = asyncio.create_task(self._let_go(slot, grace_s), name=f"end of {slot.name}")
        return slot.task

    async def clear(self, grace_s: float) -> None:
        """Ends loads at once, and all other replicas when their calls have ended or the grace is over."""
        loading = [slot for slot in self.slots if slot.phase == "loading"]
        before = [slot for slot in self.slots if slot.phase == "leaving"]
        for slot in loading:
            if slot.task is not None:
                slot.task.cancel()
        for slot in self.serving:
            self.retire(slot, grace_s)
        tasks = [slot.task for slot in self.slots if slot.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=grace_s)
            for slot in before:  # those had a longer grace
                if slot.backend is not None:
                    await slot.backend.stop()
            await asyncio.wait(tasks)
        for slot in loading:
            if slot in self.slots:  # cancelled before it had begun
                await self._free(slot)
        self.refusal, self.retry_at, self._failures = None, 0.0, 0

    def used(self, replica: str) -> None:
        """A call has begun or ended there."""
        for slot in self.slots:
            if slot.name == replica:
                slot.used_at = self._clock()

    def standings(self) -> Mapping[str, tuple[Standing, float]]:
        """See `polyroute.backends.local.memory.Tenant`."""
        order = sorted(self.serving, key=lambda slot: (self._busy(slot), slot.used_at))
        spare = len(order) - self._keep()
        found = {}
        for place, slot in enumerate(order):
            may_go = Standing.BUSY if self._busy(slot) else Standing.IDLE
            found[slot.name] = (may_go if place < spare else Standing.WANTED, slot.used_at)
        return found

    async def evict(self, replica: str, sake: str) -> None:
        """See `polyroute.backends.local.memory.Tenant`."""
        slot = next((slot for slot in self.serving if slot.name == replica), None)
        if slot is not None and self.standings()[replica][0] is Standing.IDLE:
            _log.info("model.evicted", replica=replica, sake=sake)
            self._on_evict()
            await asyncio.wait([self.retire(slot)])

    def check(self) -> None:
        """Lets those go that have failed after they were ready, such as by a reload that did not succeed."""
        for slot in self.serving:
            if slot.state is ModelState.FAILED:
                self._failed(slot, ModelFailed(f"model `{self._model}` is not loaded: {slot.status().detail}"))
                self.retire(slot, 0)
        self._on_change()

    def _busy(self, slot: Slot) -> bool:
        status = slot.status()
        return bool(status.in_flight or self.waiting) or status.state is not ModelState.WARM

    async def _bring_up(self, slot: Slot, insist: bool) -> None:
        try:
            needs = await asyncio.to_thread(self._needs)
            device, counted_as = await self._place(slot, needs)
            slot.holding = await self._memory.take(self, slot.name, counted_as, needs, insist=insist)
            slot.backend = self._make(self._config, slot.name, device, slot.holding.kv_most, self.check)
            await slot.backend.load()
            if (footprint := slot.backend.footprint) is not None:
                self.weights_bytes = footprint.bytes
                await slot.holding.measured(footprint)
        except PolyrouteError as error:
            slot.phase = "leaving"
            self._failed(slot, error)
        except Exception as error:  # noqa: BLE001 - whatever it is, callers wait for its end
            _log.exception("load.broken", replica=slot.name)
            slot.phase = "leaving"
            self._failed(slot, ModelFailed(f"model `{self._model}` is not loaded: {type(error).__name__}: {error}"))
        else:
            slot.phase, slot.used_at = "serving", self._clock()
            slot.seats = slot.backend.facts().max_sequences
            self._pool.add(slot.backend)
            self.refusal, self._failures, self._told = None, 0, ""
            self._on_load("ok", slot.used_at - slot.begun)
            self.check()
        finally:
            if slot.phase != "serving":
                await self._free(slot)

    async def _place(self, slot: Slot, needs: Needs) -> tuple[str, str]:
        """As of `Memory.place`; where that is not known to have the memory, those go first that leave anyway."""
        while True:
            device, counted_as = self._memory.place(self._config.device)
            if self._memory.fits(slot.name, counted_as, needs) or not await self._departure():
                return device, counted_as

    def _failed(self, slot: Slot, error: PolyrouteError) -> None:
        if isinstance(error, Overloaded):  # nothing was wrong with the load
            wait_s = _ROOM_S
        else:
            self._failures += 1
            wait_s = backoff(self._failures, *_RELOAD_S)
        now = self._clock()
        self.retry_at = now + wait_s
        if error.message != self._told:  # once, not at each try
            self._told = error.message
            _log.error("model.failed", replica=slot.name, error=error.message, retry_in_s=wait_s)
        if not any(other is not slot for other in self.serving):
            self.refusal = error
        self._on_load(error.reason, now - slot.begun)
        self._on_change()

    async def _let_go(self, slot: Slot, grace_s: float) -> None:
        try:
            if slot.backend is not None:
                await self._pool.remove(slot.backend, grace_s)
        finally:
            await self._free(slot)

    async def _free(self, slot: Slot) -> None:
        """Ends what is left of the replica; its place and its memory are free after that."""
        try:
            if slot.backend is not None:
                await slot.backend.stop()
        finally:
            if slot.holding is not None:
                slot.holding.release()
            self.slots.remove(slot)
            self._on_change()
