"""Deployments that were replaced or removed: each is stopped once the calls that know it have ended."""

from __future__ import annotations

import asyncio

import structlog

from polyroute.core.backend import Backend
from polyroute.routing.registry import Deployment

log = structlog.get_logger(__name__)


class Departures:
    """Takes leave of deployments, each for `grace_s` seconds at most; calls that go on longer end with `Draining`."""

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._leaving: dict[asyncio.Task[None], Deployment] = {}
        self._hurry = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Departures {[deployment.id for deployment in self._leaving.values()]}>"

    @property
    def names(self) -> frozenset[str]:
        """IDs of the models that are leaving."""
        return frozenset(deployment.id for deployment in self._leaving.values())

    def begin(self, deployment: Deployment) -> asyncio.Task[None]:
        """Lets a deployment go that gets no new calls any more; the task ends when it is stopped."""
        task = asyncio.create_task(self._leave(deployment), name=f"departure of {deployment.id}")
        self._leaving[task] = deployment
        task.add_done_callback(self._leaving.pop)
        return task

    async def next_for(self, backend: Backend) -> bool:
        """Returns True once one of the local models that are leaving has given its memory back; False where none is.

        False at once where `backend` is of one of them: what it loads for its last calls, these must not wait for.
        """
        local = {task: deployment for task, deployment in self._leaving.items() if deployment.local}
        if not local or any(deployment.backend is backend for deployment in local.values()):
            return False
        await asyncio.wait(local, return_when=asyncio.FIRST_COMPLETED)
        return True

    async def close(self) -> None:
        """Stops every one of them now."""
        self._hurry.set()
        if self._leaving:
            await asyncio.wait(list(self._leaving))

    async def _leave(self, deployment: Deployment) -> None:
        emptying = asyncio.ensure_future(deployment.occupancy.empty(self._grace_s))
        hurrying = asyncio.ensure_future(self._hurry.wait())
        await asyncio.wait({emptying, hurrying}, return_when=asyncio.FIRST_COMPLETED)
        for waiting in (emptying, hurrying):
            waiting.cancel()
        await asyncio.gather(emptying, hurrying, return_exceptions=True)
        cut = deployment.occupancy.inside
        try:
            await deployment.cached.ledger.flush()
            await deployment.backend.stop()
        except Exception:  # our bug, and nobody waits who could be told
            log.exception("deployment.stop_failed", model=deployment.id)
        else:
            log.info("deployment.left", model=deployment.id, calls_cut=cut)
