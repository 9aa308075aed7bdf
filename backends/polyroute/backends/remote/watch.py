"""Keeps knowing how a peer is: asks it at the start, again while it cannot be reached, and now and then afterwards."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Final

import structlog

from polyroute.backends.remote.lists import Lists
from polyroute.backends.remote.peer import Peer
from polyroute.backends.remote.probe import ModelList, PeerFacts, probe
from polyroute.backends.remote.turns import Turns
from polyroute.core.backend import ModelState
from polyroute.core.errors import Draining, PeerUnreachable, PolyrouteError

FIRST_WAIT_S: Final = 0.25
"""Wait before a peer that was lost is asked again; twice as long each time, up to the interval."""

DOUBT_S: Final = 1.0
"""Least time between two questions to a peer whose answers do not fit what it said."""

_log = structlog.get_logger(__name__)


class Watch:
    """The state of one peer, and its facts as far as they are known.

    It is asked about every `interval_s` seconds, so that it shows when it falls silent while no call comes, and that
    a new version behind the same URL is noticed. A peer that answers but tells nothing is reached all the same, where
    its dialect is known: by its facts, or as `dialect_told`. `turns` is shared by the watches that must not all ask at
    once, `lists` by those that may use what another has just been told by the same peer.
    """

    def __init__(
        self,
        peer: Peer,
        peer_model: str,
        interval_s: float,
        *,
        dialect_told: bool = False,
        turns: Turns | None = None,
        lists: Lists | None = None,
    ) -> None:
        self.facts: PeerFacts | None = None
        self.state = ModelState.LOADING
        self.detail = "not reached yet"
        self.ready_since = 0.0
        self._peer = peer
        self._peer_model = peer_model
        self.interval_s = interval_s
        """Counts from the next time on."""
        self._dialect_told = dialect_told
        self._turns = turns
        self._lists = lists
        self._refused = ""
        self._probing: asyncio.Task[PeerFacts] | None = None
        self._loop: asyncio.Task[None] | None = None
        self._soon = asyncio.Event()

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
        """The peer has answered, a call or a question."""
        if self.state is not ModelState.WARM:
            self.ready_since = time.time()
            _log.info("peer.reached", peer=self._peer.where)
        self.state = ModelState.WARM
        unlisted = self.facts is not None and not self.facts.listed
        self.detail = self._refused or (f"the peer does not list `{self._peer_model}`" if unlisted else "")

    def lost(self, error: PolyrouteError) -> None:
        """The peer could not be reached."""
        if self.state is not ModelState.FAILED:
            _log.warning("peer.lost", peer=self._peer.where, reason=error.reason, message=error.own_message)
        self.state, self.detail, self.ready_since = ModelState.FAILED, error.message, 0.0
        self._soon.set()

    def doubt(self) -> None:
        """What is known of the peer is known to be outdated: it is asked again soon."""
        self._soon.set()

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
        begun = time.monotonic()
        try:
            told = await probe(self._peer)
        except PeerUnreachable as error:
            self.lost(error)
            raise
        except Draining:
            raise
        except PolyrouteError as error:
            if self._dialect_told or self.facts is not None:
                self._refused = f"GET /v1/models: {error.message}"
                self.reached()
            else:  # it is up, but nobody knows how to call it
                self.lost(error)
                self.detail += "; so its dialect is not known, unless `api` says it"
            raise
        if self._lists is not None:
            self._lists.keep(self._peer.same, told, begun)
        return self._take(told)

    def _take(self, told: ModelList) -> PeerFacts:
        self.facts, self._refused = told.facts(self._peer_model), ""
        self.reached()
        return self.facts

    def _told_another(self) -> bool:
        """Whether another model's watch has just heard from the same peer, which tells of this model, too."""
        told = None if self._lists is None else self._lists.recent(self._peer.same)
        if told is not None:
            self._take(told)
        return told is not None

    async def _run(self) -> None:
        wait_s = FIRST_WAIT_S
        while True:
            urgent = self._soon.is_set()  # what was known until now does not do
            self._soon.clear()
            try:
                if self._turns is not None:
                    # One that was lost a moment ago is in a hurry; of those that are gone for long there may be many.
                    hurry = self.state is ModelState.FAILED and wait_s < self.interval_s
                    await self._turns.turn("lost" if hurry else "")
                urgent |= self._soon.is_set() or self.state is ModelState.FAILED
                if urgent or not self._told_another():
                    await self.ask()
            except PolyrouteError:
                pass  # the state tells it
            except Exception:  # noqa: BLE001 - our bug; the peer is watched all the same
                _log.exception("peer.probe_failed", peer=self._peer.where)
            if self.state is ModelState.WARM:
                wait_s = FIRST_WAIT_S
                asked = time.monotonic()
                await _until(self._soon, self.interval_s * random.uniform(0.8, 1.2))  # noqa: S311
                if self.state is ModelState.WARM:  # lost it is not, so this was its time, or a doubt
                    least = asked + min(DOUBT_S, self.interval_s)
                    await asyncio.sleep(max(0.0, least - time.monotonic()))
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
