"""The memory that local models may take together, on each device, and who leaves when another has to come in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final, Protocol

import structlog

from polyroute.backends.local.claims import (
    LEAST_KV_BYTES,
    Claim,
    Footprint,
    Needs,
    Standing,
    place,
    size,
    whom_to_evict,
)
from polyroute.backends.local.machine import ledger_name, machine_bytes
from polyroute.core.errors import ModelFailed, Overloaded

_log = structlog.get_logger(__name__)

_SHARE: Final = 0.9  # of a device's memory, where the configuration sets no budget
_KV_SHARE: Final = 0.25  # of the machine's memory that is left: it is for the other models too
_WAIT_S: Final = 30.0
_RETRY_S: Final = 5.0
_ENDLESS: Final = 1 << 62


class Tenant(Protocol):
    """Whoever holds memory for its replicas."""

    def standings(self) -> Mapping[str, tuple[Standing, float]]:
        """Of each of its replicas by name: whether it may leave, and when it was last used."""

    async def evict(self, replica: str, sake: str) -> None:
        """Lets a replica go, for the sake of another, if it still may; returns once its memory is free."""


class Holding:
    """One replica's memory, held until `release`."""

    def __init__(self, memory: Memory, tenant: Tenant, replica: str, device: str, needs: Needs) -> None:
        self._memory = memory
        self.tenant = tenant
        self.replica = replica
        self.device = device
        self.bytes = needs.least
        self.kv_most: int | None = None
        """What the replica may take for keys and values; None where that is its own to choose."""

    def __repr__(self) -> str:
        return f"<Holding {self.replica} {size(self.bytes)} of {self.device}>"

    def release(self) -> None:
        """Gives the memory back. May be called twice."""
        self._memory._release(self)

    async def measured(self, found: Footprint) -> None:
        """Takes what the replica really needs instead of what was expected, and sees to it that all fits again.

        Raises `ModelFailed` where the replica alone is larger than the budget.
        """
        await self._memory._measured(self, found)


class Memory:
    """`budget_bytes` of each device for local models; by default most of what the device has.

    A CUDA device's memory is known once a worker has told; until then, nothing there is refused. Belongs to one event
    loop.
    """

    def __init__(
        self,
        budget_bytes: int | None = None,
        *,
        gpus: int = 0,
        wait_s: float = _WAIT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._asked = budget_bytes
        self._gpus = gpus
        self._wait_s = wait_s
        self._clock = clock
        self._device_bytes = {"cpu": machine_bytes()}
        self._holdings: list[Holding] = []
        self._change = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Memory {self._holdings}>"

    def budget(self, device: str) -> int | None:
        """Bytes that models may take of a device together; None where that is not known yet."""
        if self._asked is not None:
            return self._asked
        has = self._device_bytes.get(device)
        return None if has is None else int(has * _SHARE)

    def held(self, device: str) -> int:
        """Bytes that models take of it, or are about to."""
        return sum(holding.bytes for holding in self._on(device))

    def left(self, device: str) -> int | None:
        """Bytes of the budget that nobody holds."""
        budget = self.budget(device)
        return None if budget is None else budget - self.held(device)

    def devices(self) -> list[str]:
        """Those whose memory is counted, by name."""
        return sorted({*self._device_bytes, *(holding.device for holding in self._holdings)})

    def place(self, device: str) -> tuple[str, str]:
        """What a replica's worker should be told of its device, and the name of the one that it will take memory of."""
        chosen = place(device, self._gpus, self._room)
        guess = ("cuda:0" if self._gpus else "cpu") if chosen == "auto" else chosen
        return chosen, ledger_name(guess)

    def resize(self, budget_bytes: int | None) -> None:
        """Another budget from now on; nobody leaves for it but when the next replica comes."""
        self._asked = budget_bytes
        self.changed()

    def fits(self, replica: str, device: str, needs: Needs) -> bool:
        """Whether there is memory for a replica, as far as is known, without that anybody leaves.

        Raises `ModelFailed` where it is larger than the budget.
        """
        left = self.left(device)
        return left is not None and left >= self._capped(device, replica, needs).least

    async def take(self, tenant: Tenant, replica: str, device: str, needs: Needs, *, insist: bool) -> Holding:
        """Memory for a replica about to be loaded; with `insist`, others leave for it, now or once they are idle.

        Raises `ModelFailed` where it is larger than the budget, `Overloaded` where others hold too much of that.
        """
        until = self._clock() + self._wait_s
        needs = self._capped(device, replica, needs)
        while (left := self.left(device)) is not None and left < needs.least:
            if not insist:
                raise self._full(device, replica, needs)
            if not await self._make_room(device, needs.least, sake=replica) and not await self._wait(
                device, needs.least, until
            ):
                raise self._full(device, replica, needs)
        holding = Holding(self, tenant, replica, device, needs)
        holding.kv_most = self._kv_most(device, needs)
        holding.bytes = needs.bytes + (needs.kv_bytes or holding.kv_most or 0)
        self._holdings.append(holding)
        return holding

    def changed(self) -> None:
        """A replica has become idle, or has left."""
        self._change.set()
        self._change = asyncio.Event()

    def _capped(self, device: str, replica: str, needs: Needs) -> Needs:
        """The needs, as far as they may go; raises `ModelFailed` where they surely go further."""
        budget = self.budget(device)
        if budget is None or needs.least <= budget:
            return needs
        if needs.sure:
            raise _too_large(f"`{replica}` needs about {size(needs.least)}", budget, device)
        return replace(needs, bytes=max(0, needs.bytes - (needs.least - budget)))

    def _room(self, device: str) -> int:
        left = self.left(device)
        return _ENDLESS - self.held(device) if left is None else left

    def _kv_most(self, device: str, needs: Needs) -> int | None:
        left = self.left(device)
        if needs.kv_bytes is not None or left is None:
            return None
        rest = left - needs.bytes
        return max(LEAST_KV_BYTES, int(rest * _KV_SHARE) if device == "cpu" else rest)

    async def _make_room(self, device: str, bytes: int, sake: Holding | str) -> bool:
        """Evicts so that `bytes` are left, for the sake of a replica; whether anybody was asked to leave."""
        left = self.left(device)
        if left is None or left >= bytes:
            return False
        others = [holding for holding in self._on(device) if holding is not sake]
        leaving = [others[at] for at in whom_to_evict([self._claim(other) for other in others], bytes - left)]
        name = sake.replica if isinstance(sake, Holding) else sake
        await asyncio.gather(*(holding.tenant.evict(holding.replica, name) for holding in leaving))
        return bool(leaving)

    async def _wait(self, device: str, bytes: int, until: float) -> bool:
        """Waits for a change; False where no change could leave `bytes`, or the time is over."""
        kept = sum(claim.bytes for claim in self._claims(device) if claim.standing is Standing.WANTED)
        if (self.budget(device) or 0) - kept < bytes:
            return False
        try:
            async with asyncio.timeout(until - self._clock()):
                await self._change.wait()
        except TimeoutError:
            return False
        return True

    def _on(self, device: str) -> list[Holding]:
        return [holding for holding in self._holdings if holding.device == device]

    def _claim(self, holding: Holding) -> Claim:
        # What is not among its tenant's replicas is on its way in or out: it will be idle, or gone.
        standing, used_at = holding.tenant.standings().get(holding.replica, (Standing.BUSY, 0.0))
        return Claim(holding.replica, holding.bytes, standing, used_at)

    def _claims(self, device: str) -> list[Claim]:
        return [self._claim(holding) for holding in self._on(device)]

    def _release(self, holding: Holding) -> None:
        if holding in self._holdings:
            self._holdings.remove(holding)
            self.changed()

    async def _measured(self, holding: Holding, found: Footprint) -> None:
        device = ledger_name(found.device)
        if found.device_bytes:
            self._device_bytes[device] = found.device_bytes
        holding.device = device
        if found.bytes:
            holding.bytes = found.bytes + found.kv_bytes
        budget = self.budget(device)
        if budget is not None and holding.bytes > budget:
            raise _too_large(f"`{holding.replica}` takes {size(holding.bytes)}", budget, device)
        await self._make_room(device, 0, sake=holding)
        if (left := self.left(device)) is not None and left < 0:
            _log.warning("memory.over", device=device, budget=size(budget or 0), over=size(-left))
        self.changed()

    def _full(self, device: str, replica: str, needs: Needs) -> Overloaded:
        budget, left = self.budget(device) or 0, max(0, self.left(device) or 0)
        holders = ", ".join(f"`{c.replica}` {size(c.bytes)} ({c.standing.name.lower()})" for c in self._claims(device))
        return Overloaded(
            f"`{replica}` needs about {size(needs.least)} on {device}, but {size(left)} of the memory budget of "
            f"{size(budget)} are left; the rest is held by {holders}",
            retry_after_s=_RETRY_S,
        )


def _too_large(what: str, budget: int, device: str) -> ModelFailed:
    return ModelFailed(
        f"{what}, more than the memory budget of {size(budget)} on {device}; raise `memory_budget`, or make the model "
        "smaller by `quantization` or `kv_cache_memory`"
    )
