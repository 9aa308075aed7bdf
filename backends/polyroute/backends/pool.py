"""Several replicas of one model as one backend: who gets the next call, and how they all are together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Literal, TypeAlias, cast

from polyroute.core.backend import Backend, BackendStatus, ModelState, ReplicaStatus, TokenCount
from polyroute.core.call import Call
from polyroute.core.config import ModelConfig
from polyroute.core.event import Event

Balance: TypeAlias = Literal["least_outstanding", "round_robin"]


class Pool:
    """A `polyroute.core.backend.Backend` over backends that serve the same model.

    A call goes to a replica of the readiest state that there is, so one that has failed gets calls only while no
    better one exists. Among those, `least_outstanding` takes the one with the fewest calls in flight and goes round
    where several have as few; `round_robin` goes round always. A call is in flight from its choice until its stream
    closes, however it closes. A call that fails is not tried again here: what may follow is the plan's to say.
    """

    def __init__(self, backends: Sequence[Backend], balance: Balance = "least_outstanding") -> None:
        if not backends:
            raise ValueError("a pool needs at least one backend")
        self._backends = tuple(backends)
        self._balance = balance
        self._in_flight = [0] * len(self._backends)
        self._next = 0

    def __repr__(self) -> str:
        return f"<Pool {self._balance} in_flight={self._in_flight} of {list(self._backends)}>"

    async def start(self) -> None:
        """Starts every replica."""
        for backend in self._backends:
            await backend.start()

    async def load(self) -> None:
        """Returns once every replica was tried and one is warm; raises the first one's error where none is."""
        results = await asyncio.gather(*(backend.load() for backend in self._backends), return_exceptions=True)
        errors = [result for result in results if isinstance(result, BaseException)]
        if len(errors) == len(results):
            raise errors[0]

    async def unload(self, grace_s: float) -> None:
        """Unloads every replica at once; raises the first error once all are done."""
        await _all(backend.unload(grace_s) for backend in self._backends)

    async def stop(self) -> None:
        """Stops every replica at once; raises the first error once all are done."""
        await _all(backend.stop() for backend in self._backends)

    def adopt(self, config: ModelConfig) -> None:
        """Balances as `config` says, and every replica takes it on."""
        self._balance = config.balance
        for backend in self._backends:
            backend.adopt(config)

    def stream(self, call: Call) -> AsyncIterator[Event]:
        """Answers by the replica that is chosen when the first event is asked for."""
        return self._stream(call)

    async def _stream(self, call: Call) -> AsyncGenerator[Event, None]:
        chosen = self._choose()
        self._in_flight[chosen] += 1
        try:
            events = cast("AsyncGenerator[Event, None]", self._backends[chosen].stream(call))
            async with aclosing(events):
                async for event in events:
                    yield event
        finally:
            self._in_flight[chosen] -= 1

    def _choose(self) -> int:
        """The replica for the next call; decided at once, so that no two calls decide on the same counts."""
        count = len(self._backends)
        ranks = [backend.status().state.readiness for backend in self._backends]
        best = min(ranks)
        turn = [(self._next + step) % count for step in range(count)]
        ready = [place for place in turn if ranks[place] == best]
        chosen = min(ready, key=lambda p: self._in_flight[p]) if self._balance == "least_outstanding" else ready[0]
        self._next = (chosen + 1) % count
        return chosen

    async def count_tokens(self, call: Call) -> TokenCount:
        """Counts by the replica that would get the next call."""
        return await self._backends[self._choose()].count_tokens(call)

    def status(self) -> BackendStatus:
        """The readiest replica's state; a version that names each one where replicas differ.

        So no answer that is kept under one version can come from another.
        """
        all_of = [backend.status() for backend in self._backends]
        first = min(all_of, key=lambda status: status.state.readiness)
        serving = [status for status in all_of if status.state is not ModelState.FAILED] or all_of
        lengths = [status.context_length for status in serving if status.context_length]
        since = [status.ready_since for status in all_of if status.state is ModelState.WARM and status.ready_since]
        return BackendStatus(
            state=first.state,
            detail=first.detail,
            version="+".join(sorted({status.version for status in serving if status.version})),
            context_length=min(lengths, default=0),
            chat=all(status.chat for status in serving),
            greedy_default=all(status.greedy_default for status in serving),
            ready_since=min(since, default=0.0),
            replicas=tuple(
                replica
                for status, in_flight in zip(all_of, self._in_flight, strict=True)
                for replica in _counted(status.replicas, in_flight)
            ),
        )


def _counted(replicas: tuple[ReplicaStatus, ...], in_flight: int) -> tuple[ReplicaStatus, ...]:
    """A backend's replicas with the pool's own count, where there is one replica to count for."""
    return (replace(replicas[0], in_flight=in_flight),) if len(replicas) == 1 else replicas


async def _all(steps: Iterable[Awaitable[None]]) -> None:
    results = await asyncio.gather(*steps, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
