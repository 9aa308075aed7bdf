"""However calls end, and all at once, nothing is held afterwards: no permit, place, attempt, stream or cancellation."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from polyroute.backends.echo import EchoBackend, Script
from polyroute.backends.pool import Pool
from polyroute.core.call import Call
from polyroute.core.config import DeploymentConfig
from polyroute.core.errors import Overloaded, PeerFailed, PeerUnreachable, PolyrouteError
from polyroute.core.request import CacheMode, CacheOptions, Request, RoutingOptions, Sampling
from polyroute.routing.gateway import Gateway
from polyroute.routing.streams import generator

MODELS = ("one", "two")
CONFIG = {
    "default_model": "chat",
    "models": [
        {"id": "one", "type": "remote", "base_url": "http://one:1", "max_concurrency": 8, "timeout": 0.03},
        {"id": "two", "type": "remote", "base_url": "http://two:1", "max_concurrency": {"min": 2, "max": 20}},
    ],
    "routes": [
        {
            "id": "chat",
            "variants": [{"name": "a", "model": "one", "weight": 1}, {"name": "b", "model": "two", "weight": 1}],
            "fallback": ["two"],
        }
    ],
}


class Turmoil:
    """Models that answer, fail and hang by chance, and callers that read, wait and leave by it."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.echoes = [
            EchoBackend(model, replica=f"{model}{i}", script=self.script) for model in MODELS for i in (0, 1)
        ]
        self.left: set[asyncio.Task[None]] = set()

    def pool(self, model: str) -> Pool:
        options: dict[str, Any] = {"breaker": {"open": 0.01, "max_open": 0.02}, "first_token_timeout": 0.01}
        if self.chance.random() < 0.5:
            options["hedge"] = {"after": "2ms"}
        config = DeploymentConfig(id=model, **options)
        return Pool(config, [echo for echo in self.echoes if echo.model == model])

    def script(self, _call: Call) -> Script:
        error = self.chance.choice([PeerFailed("ill"), Overloaded("full"), PeerUnreachable("gone"), None, None, None])
        gate = asyncio.Event() if self.chance.random() < 0.1 else None
        place = self.chance.choice([0, 2])
        texts = ["a"] * self.chance.randrange(8)
        return Script(texts=texts, pause=self.pause, error=error, error_after=place, gate=gate, gate_after=place)

    async def pause(self, _place: int = 0) -> None:
        if self.chance.random() < 0.5:
            await asyncio.sleep(self.chance.choice([0, 0, 0.001, 0.003, 0.008]))

    async def connection(self, gateway: Gateway) -> None:
        """Calls one after the other, as a connection over HTTP makes them, in one task."""
        task = asyncio.current_task()
        assert task is not None
        for _ in range(5):
            try:
                await self.call(gateway)
            except PolyrouteError:
                pass
            except asyncio.CancelledError:
                assert task in self.left, "nobody has cancelled this one"
                raise
            assert task.cancelling() == 0 or task in self.left

    async def call(self, gateway: Gateway) -> None:
        chance = self.chance
        request = Request(
            chance.choice(["chat", *MODELS]),
            prompt=f"a {chance.randrange(4)}",
            sampling=Sampling(temperature=0),
            routing=RoutingOptions(user=str(chance.randrange(9))),
            cache=CacheOptions(chance.choice([CacheMode.BYPASS, CacheMode.UNSPECIFIED, CacheMode.REFRESH])),
        )
        most, deadline = chance.choice([1, 3, 99, 99]), time.monotonic() + chance.choice([0.002, 0.01, 0.05, 0.3])
        async with aclosing(generator(gateway.generate(Call(request, "r1", deadline=deadline)))) as events:
            async for _event in events:
                await self.pause()
                most -= 1
                if not most:
                    return

    def leave(self, task: asyncio.Task[None]) -> None:
        if not task.done():
            self.left.add(task)
            task.cancel()


@pytest.mark.parametrize("drained", [False, True])
@pytest.mark.parametrize("seed", range(3))
async def test_nothing_is_held_after_calls_that_ended_in_every_way(
    build: Callable[..., Gateway], until: Callable[..., Any], registry: CollectorRegistry, seed: int, drained: bool
) -> None:
    turmoil = Turmoil(seed)
    pools = {model: turmoil.pool(model) for model in MODELS}
    gateway = build(CONFIG, pools)
    callers = [asyncio.create_task(turmoil.connection(gateway)) for _ in range(40)]
    for caller in callers[::3]:
        asyncio.get_running_loop().call_later(turmoil.chance.uniform(0, 0.1), turmoil.leave, caller)
    if drained:
        await until(lambda: any(echo.open for echo in turmoil.echoes))
        await gateway.drain(0.01)
        gateway.cut()
    ends = await asyncio.gather(*callers, return_exceptions=True)
    assert not [end for end in ends if isinstance(end, Exception)]
    await until(lambda: not any(echo.open for echo in turmoil.echoes))
    await until(lambda: not any(gateway.model(model).runs for model in MODELS))
    for model in MODELS:
        deployment, replicas = gateway.snapshot.deployments[model], pools[model]._replicas
        assert (deployment.permits.in_flight, deployment.permits.queued, deployment.occupancy.inside) == (0, 0, 0)
        assert [(replica.in_flight, replica.breaker._trials) for replica in replicas] == [(0, 0), (0, 0)]
    assert not gateway._intake._waits
    assert await gateway.drain(0)
    assert registry.get_sample_value("polyroute_requests_in_flight") == 0
