"""Deployments that were replaced or removed: each is stopped once the calls that know it have ended."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Final

import structlog

from polyroute.core.backend import Backend
from polyroute.routing.registry import Deployment

LAST_CALL_S: Final = 3600.0
"""How long the last calls of a deployment may go on, in seconds: longer than answers take, but not for ever, since a
stream that never ends would keep what it runs on for good."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Departure:
    deployment: Deployment
    emptying: asyncio.Task[bool]

    def hurry(self) -> None:
        """Its calls are not waited for any longer."""
        self.emptying.cancel()


class Departures:
    """Takes leave of deployments, each after its last call, or after `longest_s` seconds.

    Where memory is needed and none of the local ones gives its own back in `grace_s` seconds, the calls of all of them
    are cut; calls that are cut end with `Draining`.
    """

    def __init__(self, grace_s: float, *, longest_s: float = LAST_CALL_S) -> None:
        self._grace_s = grace_s
        self._longest_s = longest_s
        self._departures: dict[asyncio.Task[None], _Departure] = {}
        self._counts: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<Departures {sorted(self._counts.elements())}>"

    @property
    def names(self) -> frozenset[str]:
        """IDs of the models that are leaving."""
        return frozenset(self._counts)

    def leaving(self, id: str) -> bool:
        """Whether a deployment of that model is leaving."""
        return id in self._counts

    def begin(self, deployment: Deployment) -> asyncio.Task[None]:
        """Lets a deployment go that gets no new calls any more; the task ends when it is stopped."""
        last_calls = deployment.occupancy.empty(self._longest_s)
        emptying = asyncio.create_task(last_calls, name=f"last calls of {deployment.id}")
        departure = _Departure(deployment, emptying)
        task = asyncio.create_task(self._leave(departure), name=f"departure of {deployment.id}")
        self._departures[task] = departure
        self._counts[deployment.id] += 1
        task.add_done_callback(self._left)
        return task

    async def next_for(self, backend: Backend) -> bool:
        """Returns True once one of the local models that are leaving has given its memory back; False where none is.

        If none has when the grace is over, their calls are cut. False at once where `backend` is of one of them: what
        it loads for its last calls, these must not wait for.
        """
        local = {task: departure for task, departure in self._departures.items() if departure.deployment.local}
        if not local or any(departure.deployment.backend is backend for departure in local.values()):
            return False
        left, _ = await asyncio.wait(local, timeout=self._grace_s, return_when=asyncio.FIRST_COMPLETED)
        if not left:
            for departure in local.values():
                departure.hurry()
            await asyncio.wait(local, return_when=asyncio.FIRST_COMPLETED)
        return True

    async def close(self) -> None:
        """Stops every one of them now."""
        for departure in self._departures.values():
            departure.hurry()
        if self._departures:
            await asyncio.wait(list(self._departures))

    async def _leave(self, departure: _Departure) -> None:
        deployment = departure.deployment
        await asyncio.wait({departure.emptying})
        cut = deployment.occupancy.inside
        try:
            await deployment.backend.stop()
        except Exception:  # our bug, and nobody waits who could be told
            log.exception("deployment.stop_failed", model=deployment.id)
        else:
            log.info("deployment.left", model=deployment.id, calls_cut=cut)

    def _left(self, task: asyncio.Task[None]) -> None:
        id = self._departures.pop(task).deployment.id
        self._counts[id] -= 1
        if not self._counts[id]:
            del self._counts[id]
