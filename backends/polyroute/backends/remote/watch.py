"""Keeps knowing how a peer is: asks it at the start, again while it cannot be reached, and now and then afterwards."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Final

import structlog

from polyroute.backends.remote.pace import Pace
from polyroute.backends.remote.peer import Peer
from polyroute.backends.remote.probe import PeerFacts, probe
from polyroute.core.backend import ModelState
from polyroute.core.errors import Draining, PeerUnreachable, PolyrouteError

FIRST_WAIT_S: Final = 0.25
"""Wait before a peer that was lost is asked again; twice as long each time, up to the interval."""

_log = structlog.get_logger(__name__)


class Watch:
    """The state of one peer, and its facts as far as they are known.

    It is asked about every `interval_s` seconds, so that it shows when it falls silent while no call comes, and that
    a new version behind the same URL is noticed. `pace` is shared by the watches that must not all ask at once.
    """

    def __init__(self, peer: Peer, peer_model: str, interval_s: float, *, pace: Pace | None = None) -> None:
        self.facts: PeerFacts | None = None
        self.state = ModelState.LOADING
        self.detail = "not reached yet"
        self.ready_since = 0.0
        self._peer = peer
        self._peer_model = peer_model
        self.interval_s = interval_s
        """Counts from the next time on."""
        self._pace = pace
        self._probing: asyncio.Task[PeerFacts] | None = None
        self._loop: asyncio.Task[None] | None = None
        self._lost = asyncio.Event()

    def start(self) -> None:
        """Begins to ask, in the background, until `stop`."""
        if self._loop is None:
            self._loop = asyncio.create_task(self._run(), name=f"watch {self._peer.where}")

    async def stop(self) -> None:
        """Ends what runs in the background."""
        tasks = [task for task in (self._loop, self._probing) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def reached(self) -> None:
        """The peer has answered a call."""
        if self.state is not ModelState.WARM:
            self.ready_since = time.time()
            _log.info("peer.reached", peer=self._peer.where)
        self.state = ModelState.WARM
        self.detail = "" if self.facts is None or self.facts.listed else f"the peer does not list `{self._peer_model}`"

    def lost(self, error: PolyrouteError) -> None:
        """The peer could not be reached."""
        if self.state is not ModelState.FAILED:
            _log.warning("peer.lost", peer=self._peer.where, reason=error.reason, message=error.message)
        self.state, self.detail, self.ready_since = ModelState.FAILED, error.message, 0.0
        self._lost.set()

    async def ask(self) -> PeerFacts:
        """The peer's facts, asked for now; callers at the same time share one question. Raises why there are none."""
        if self._probing is None or self._probing.done():
            self._probing = asyncio.create_task(self._ask(), name=f"probe {self._peer.where}")
            self._probing.add_done_callback(lambda done: done.cancelled() or done.exception())  # it may be unheard
        task = self._probing
        await asyncio.wait({task})  # unlike awaiting the task, being cancelled here leaves it to the others
        if task.cancelled():
            raise Draining(f"{self._peer.where}: is being left")
        error = task.exception()
        if isinstance(error, PolyrouteError):  # each caller gets an error of its own
            raise type(error)(error.message, retry_after_s=error.retry_after_s) from error
        return task.result()

    async def _ask(self) -> PeerFacts:
        warm = self.state is ModelState.WARM
        try:
            facts = await probe(self._peer, self._peer_model)
        except PolyrouteError as error:
            if not warm or isinstance(error, PeerUnreachable):
                self.lost(error)
            raise
        self.facts = facts
        self.reached()
        return facts

    async def _run(self) -> None:
        wait_s = FIRST_WAIT_S
        while True:
            self._lost.clear()
            try:
                if self._pace is not None:
                    await self._pace.turn()
                await self.ask()
            except PolyrouteError:
                pass  # `lost` has told it
            except Exception:  # noqa: BLE001 - our bug; the peer is watched all the same
                _log.exception("peer.probe_failed", peer=self._peer.where)
            if self.state is ModelState.WARM:
                wait_s = FIRST_WAIT_S
                await _until(self._lost, self.interval_s * random.uniform(0.8, 1.2))  # noqa: S311
            else:
                await asyncio.sleep(min(wait_s, self.interval_s) * random.uniform(0.5, 1.0))  # noqa: S311
                wait_s = min(2 * wait_s, self.interval_s)


async def _until(event: asyncio.Event, limit_s: float) -> None:
    """Waits for `event`, at most `limit_s` seconds."""
    try:
        async with asyncio.timeout(limit_s):
            await event.wait()
    except TimeoutError:
        return
