"""Several replicas of one model as one backend: who gets the next call, and how they all are together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterable, Sequence
from typing import Protocol

from polyroute.backends.pool.attempts import Attempts, Surroundings
from polyroute.backends.pool.balance import balance_of
from polyroute.backends.pool.replica import Replica
from polyroute.core.backend import Backend, BackendStatus, Facts, ModelState, Preview, TokenCount
from polyroute.core.call import Call
from polyroute.core.config import DeploymentConfig, ModelConfig
from polyroute.core.errors import NoReplica, PolyrouteError
from polyroute.core.event import Event

_NOT_SERVING = (ModelState.FAILED, ModelState.DRAINING)
_WARM = ModelState.WARM  # to find the member of an enum takes as long as to call a function


class Source(Protocol):
    """Finds replicas, and keeps a pool's set of them up to date; `problem` says in words why it finds none."""

    problem: str

    async def start(self, pool: Pool) -> None:
        """Begins to add and remove replicas, in the background."""

    async def settled(self) -> None:
        """Returns once it has looked for them for the first time."""

    async def stop(self) -> None:
        """Ends what runs in the background."""

    def adopt(self, config: ModelConfig) -> None:
        """Takes on the options of `config`, as of `polyroute.core.backend.Backend.adopt`."""


class Pool:
    """A `polyroute.core.backend.Backend` over backends that serve the same model, and that may come and go.

    A call is attempted at one replica after the other, by the options of `config`, until one begins to answer; one
    replica is a pool as well. It is in flight at a replica from its choice until its stream closes, however it closes.
    `replicas` are there from the start; `sources` add and remove others.
    """

    def __init__(
        self,
        config: DeploymentConfig,
        replicas: Iterable[Backend] = (),
        *,
        sources: Sequence[Source] = (),
        around: Surroundings | None = None,
    ) -> None:
        self._config = config
        self._around = around or Surroundings()
        self._sources = tuple(sources)
        self._balance = balance_of(config.balance, self._around.chance)
        self._replicas: list[Replica] = []
        self._leaving: list[Replica] = []
        self._merged: tuple[list[Facts], Facts] = ([], Facts(ModelState.LOADING))
        self._attempts = Attempts(config, self._replicas, self._balance, self._around)
        for backend in replicas:
            self._add(backend, newcomer=False)

    def __repr__(self) -> str:
        return f"<Pool {self._config.id} {self._config.balance} of {[*self._replicas, *self._leaving]}>"

    def add(self, replica: Backend) -> None:
        """Takes in a replica, which whoever adds it starts; beside others that are serving it gets load gradually.

        Raises ValueError where there is one of its name.
        """
        self._add(replica, newcomer=any(other.is_available() for other in self._replicas))

    def _add(self, backend: Backend, *, newcomer: bool) -> None:
        replica = Replica(
            backend,
            self._config,
            newcomer=newcomer,
            clock=self._around.clock,
            chance=self._around.chance,
            on_return=self._returned,
            on_open=self._around.on_open,
        )
        if any(other.name == replica.name for other in self._replicas):
            raise ValueError(f"`{self._config.id}` has a replica `{replica.name}` already")
        self._replicas.append(replica)

    async def remove(self, replica: Backend, grace_s: float) -> None:
        """Gives that replica no more calls, lets those in flight go on for `grace_s` seconds, then stops it."""
        leaving = next((one for one in self._replicas if one.backend is replica), None)
        if leaving is None:
            return
        self._replicas.remove(leaving)
        self._balance.forget(leaving.name)
        leaving.leaving = True
        self._leaving.append(leaving)
        try:
            try:
                await leaving.drained(grace_s)
            finally:
                await replica.stop()
        finally:
            self._leaving.remove(leaving)

    async def start(self) -> None:
        """Starts every replica, and what looks for others."""
        for replica in self._replicas:
            await replica.backend.start()
        for source in self._sources:
            await source.start(self)

    async def load(self) -> None:
        """Returns once every replica was tried and one is warm; raises the first one's error where none is."""
        for source in self._sources:
            await source.settled()
        self._require()
        results = await asyncio.gather(*(one.backend.load() for one in self._replicas), return_exceptions=True)
        errors = [result for result in results if isinstance(result, BaseException)]
        if len(errors) == len(results):
            raise errors[0]

    async def stop(self) -> None:
        """Stops every replica at once; raises the first error once all are done."""
        await _all(source.stop() for source in self._sources)
        await _all(replica.backend.stop() for replica in [*self._replicas, *self._leaving])

    def adopt(self, config: ModelConfig) -> None:
        """Balances, retries and judges replicas as `config` says; all that is known of them stays known."""
        if config.balance != self._config.balance:
            self._balance = balance_of(config.balance, self._around.chance)
        self._config = config
        self._attempts.adopt(config, self._balance)
        for replica in [*self._replicas, *self._leaving]:
            replica.adopt(config)
        for source in self._sources:
            source.adopt(config)

    def stream(self, call: Call) -> AsyncIterator[Event]:
        """Answers by the first replica that begins to; it is chosen when the first event is asked for.

        Raises what the last attempt raised, with all attempts; `FirstTokenTimeout` where a replica was silent for
        `first_token_timeout`; `NoReplica` where every breaker is open.
        """
        return self._stream(call)

    async def _stream(self, call: Call) -> AsyncGenerator[Event, None]:
        self._require()
        attempt, first = await self._attempts.begin(call)
        try:
            yield first
            async for event in attempt.events:
                yield event
            attempt.done()
        except PolyrouteError as error:
            attempt.lost(error)
            raise
        except Exception as error:
            attempt.crashed(error)
            raise
        finally:
            await attempt.close()

    def heed(self, replica: str, open_for_s: float, why: str) -> None:
        """Leaves a replica alone that another process has found ill; see `Breaker.heed`."""
        for one in self._replicas:
            if one.name == replica:
                one.breaker.heed(open_for_s, why)

    def may_repeat(self) -> bool:
        """Whether a call that failed here may be made once more, as `retries` and their budget have it; takes one."""
        return self._attempts.may_repeat()

    async def count_tokens(self, call: Call) -> TokenCount:
        """Counts by the replica that would get the next call."""
        self._require()
        replica, _ = self._attempts.choose(call, goes=False)
        return await replica.backend.count_tokens(call)

    def preview(self, call: Call) -> Preview:
        """The replica that would get the call, and why; raises `NoReplica`."""
        self._require()
        replica, reason = self._attempts.choose(call, goes=False)
        return Preview(replica.name, reason)

    def facts(self) -> Facts:
        """The readiest replica's state; a version that names each one where replicas differ.

        So no answer that is kept under one version can come from another.
        """
        replicas = self._replicas
        if len(replicas) == 1 and not self._leaving and (only := replicas[0].facts()).state is _WARM:
            return only
        all_of = [replica.facts() for replica in [*replicas, *self._leaving]]
        if not all_of:
            return Facts(ModelState.FAILED if self._problem else ModelState.LOADING, self._config.version or "")
        before, merged = self._merged
        if all_of != before:
            merged = _merged(all_of)
            self._merged = (all_of, merged)
        return merged

    def status(self) -> BackendStatus:
        """The facts, and how each replica is."""
        facts = self.facts()
        all_of = [replica.status() for replica in [*self._replicas, *self._leaving]]
        serving = [status for status in all_of if status.state not in _NOT_SERVING] or all_of
        lengths = [status.context_length for status in serving if status.context_length]
        details = [status.detail for status in all_of if status.state is facts.state]
        return BackendStatus(
            state=facts.state,
            detail=next(iter(details), "") if all_of else self._problem or "no replica yet",
            version=facts.version,
            context_length=min(lengths, default=0),
            chat=all(status.chat for status in serving),
            greedy_default=facts.greedy_default,
            ready_since=facts.ready_since,
            max_sequences=facts.max_sequences,
            defaults=next((status.defaults for status in serving if status.defaults), None),
            replicas=tuple(replica for status in all_of for replica in status.replicas),
        )

    def _returned(self, name: str) -> None:
        self._balance.forget(name)

    @property
    def _problem(self) -> str:
        return "; ".join(filter(None, (source.problem for source in self._sources)))

    def _require(self) -> None:
        if not self._replicas:
            raise NoReplica(self._problem or f"`{self._config.id}`: has no replica yet")


def _merged(all_of: Sequence[Facts]) -> Facts:
    """The facts of replicas together; there is at least one."""
    serving = [facts for facts in all_of if facts.state not in _NOT_SERVING] or all_of
    versions = {facts.version for facts in serving}
    warm = [facts for facts in serving if facts.state is ModelState.WARM]
    return Facts(
        ModelState.WARM if warm else min((facts.state for facts in all_of), key=lambda state: state.readiness),
        version="+".join(sorted(versions - {""})),
        greedy_default=all(facts.greedy_default for facts in serving),
        max_sequences=sum(facts.max_sequences for facts in warm),
        ready_since=min((facts.ready_since for facts in warm if facts.ready_since), default=0.0),
    )


async def _all(steps: Iterable[Awaitable[None]]) -> None:
    results = await asyncio.gather(*steps, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
