"""Pools over echo backends, with a clock and a chance that the test holds."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, cast

from polyroute.backends.echo import EchoBackend, Script
from polyroute.backends.pool import Pool, Surroundings
from polyroute.core.call import Call
from polyroute.core.config import DeploymentConfig
from polyroute.core.event import Event, Route, Started
from polyroute.core.request import Request

CALL = Call(Request(model="m", prompt="a b c"), "r1")


@dataclass(slots=True)
class World:
    """Time that only `sleep` and the test move on, the least of all waits by chance, and what was told."""

    now: float = 1000.0
    slept: list[float] = field(default_factory=list)
    retries: list[str] = field(default_factory=list)
    hedges: list[str] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def pool(self, *backends: EchoBackend, **config: Any) -> Pool:
        around = Surroundings(
            clock=self.clock,
            sleep=self.sleep,
            chance=random.Random(1),
            on_retry=self.retries.append,
            on_hedge=self.hedges.append,
        )
        return Pool(DeploymentConfig(id="m", **config), backends, around=around)


def replicas(count: int, script: Script | None = None) -> list[EchoBackend]:
    return [EchoBackend("m", replica=f"r{i}", script=script) for i in range(count)]


def opened(pool: Pool, call: Call = CALL) -> AsyncGenerator[Event, None]:
    return cast("AsyncGenerator[Event, None]", pool.stream(call))


async def answered(pool: Pool, call: Call = CALL) -> Route:
    """Takes a whole answer; its route."""
    async with aclosing(opened(pool, call)) as events:
        first = await anext(events)
        assert isinstance(first, Started)
        async for _event in events:
            pass
    return first.route


async def used(pool: Pool, calls: int) -> list[str]:
    """The replicas that `calls` calls were answered by, one call after the other."""
    return [(await answered(pool)).replica for _ in range(calls)]


def in_flight(pool: Pool) -> list[int]:
    return [replica.in_flight for replica in pool.status().replicas]
