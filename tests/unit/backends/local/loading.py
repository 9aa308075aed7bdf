"""A replica whose load a test holds, and pools of such."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ByteSize

from polyroute.backends.echo import EchoBackend, Scripting
from polyroute.backends.local.claims import Footprint
from polyroute.backends.local.memory import Memory
from polyroute.backends.local.scale import Bounds
from polyroute.backends.local.warm import WarmPool
from polyroute.backends.pool import Pool
from polyroute.core.backend import BackendStatus, Facts, ModelState
from polyroute.core.config import LocalConfig, WarmConfig

MIB = 1 << 20


class LoadedByHand(EchoBackend):
    """Loads once `gate` is set, and takes `mib` of memory from then on."""

    def __init__(self, name: str, mib: int, seats: int, on_change: Callable[[], None]) -> None:
        super().__init__(name.partition("#")[0], replica=name, version="v1", state=ModelState.COLD)
        self.gate = asyncio.Event()
        self.progressed_at = 0.0
        self._mib = mib
        self._seats = seats
        self._on_change = on_change

    @property
    def footprint(self) -> Footprint | None:
        return Footprint("cpu", self._mib * MIB, 0) if self.state is ModelState.WARM else None

    async def load(self) -> None:
        self.state = ModelState.LOADING
        await self.gate.wait()
        await super().load()

    def become(self, state: ModelState, detail: str = "") -> None:
        """Its worker has died, has come back, or cannot be brought back."""
        self.state, self.detail = state, detail
        self._on_change()

    def facts(self) -> Facts:
        return replace(super().facts(), max_sequences=self._seats)

    def status(self) -> BackendStatus:
        return replace(super().status(), max_sequences=self._seats)


@dataclass(slots=True)
class Site:
    """A warm pool of replicas that a test holds, on a clock that it moves."""

    pool: WarmPool
    made: list[LoadedByHand]
    clock: list[float]
    loads: list[str] = field(default_factory=list)
    queued: list[int] = field(default_factory=lambda: [0])

    def move(self, seconds: float) -> None:
        """Time goes on, and the pool looks at how it is doing."""
        self.clock[0] += seconds
        self.pool.look()

    async def made_one(self, number: int = 1) -> LoadedByHand:
        """The replica that is made as the `number`th, once it is."""
        await until(lambda: len(self.made) >= number)
        return self.made[number - 1]

    async def warm(self, number: int = 1) -> LoadedByHand:
        """The same, loaded."""
        replica = await self.made_one(number)
        replica.gate.set()
        await until(lambda: any(slot.backend is replica for slot in self.pool._replicas.serving))
        return replica


def site(
    model: str = "m",
    *,
    bounds: Bounds | None = None,
    memory: Memory | None = None,
    script: Scripting | None = None,
    fails: Exception | None = None,
    mib: int = 10,
    seats: int = 2,
    **options: Any,
) -> Site:
    """A pool of `model`; `fails` is what loads end with until a test says otherwise."""
    clock, made, queued, loads = [0.0], [], [0], []

    def make(
        config: LocalConfig, name: str, device: str, kv_cache_most: int | None, on_change: Callable[[], None]
    ) -> LoadedByHand:
        replica = LoadedByHand(name, mib, seats, on_change)
        replica.load_error = fails
        replica.script = script or replica.script
        made.append(replica)
        return replica

    bounds = bounds or Bounds(0, 1, 60.0)
    warm = WarmConfig(min=bounds.min, max=bounds.max, idle_unload=bounds.idle_unload_s)
    config = LocalConfig(id=model, type="local", source="/nowhere", kv_cache_memory=ByteSize(16 * MIB), warm=warm)
    pool = WarmPool(
        config,
        Pool(config),
        make,
        memory or Memory(1 << 40),
        queued=lambda: queued[0],
        on_load=lambda outcome, _: loads.append(outcome),
        clock=lambda: clock[0],
        **options,
    )
    return Site(pool, made, clock, loads, queued)


async def until(reached: Callable[[], bool]) -> None:
    """Waits for what other tasks do."""
    async with asyncio.timeout(30):
        while not reached():  # noqa: ASYNC110 - what is waited for has no event to give
            await asyncio.sleep(0.001)
