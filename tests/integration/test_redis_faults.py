"""A server whose Redis is killed, stopped and filled while calls run: every call is answered, and Redis used again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from polyroute.backends.echo import EchoBackend
from polyroute.core.config import CacheConfig
from polyroute.routing.cache import guard
from polyroute.v1 import inference_pb2 as pb
from tests.integration.grpc_serving import WAIT_S, Serving, serving, settings_for
from tests.integration.redis_server import RedisServer, redis_server

REDIS_ONLY = CacheConfig.model_validate({"tiers": ["redis"]})


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as server:
        yield server


@dataclass(slots=True)
class Traffic:
    """Calls that come without end, eight at a time; each must be answered, and rightly."""

    at: Serving
    answered: int = 0
    hits: int = 0
    _running: list[asyncio.Task[None]] = field(default_factory=list)

    def begin(self) -> None:
        self._running = [asyncio.create_task(self._ask(i)) for i in range(8)]

    async def end(self) -> None:
        for task in self._running:
            task.cancel()
        for result in await asyncio.gather(*self._running, return_exceptions=True):
            assert isinstance(result, asyncio.CancelledError), result

    async def _ask(self, caller: int) -> None:
        for i in range(1_000_000):
            prompt = f"{caller} asks {i % 5}"
            answer = await self.at.inference.Generate(pb.GenerateRequest(prompt=prompt, temperature=0), timeout=WAIT_S)
            assert answer.text == prompt
            self.answered += 1
            self.hits += answer.route.cache == pb.CACHE_RESULT_HIT

    async def goes_on(self, holds: Callable[[], bool] = lambda: True) -> None:
        """Waits until a hundred more calls are answered and `holds`; none may have failed."""
        enough = self.answered + 100
        async with asyncio.timeout(WAIT_S):
            while self.answered < enough or not holds():
                assert not any(task.done() for task in self._running), self._running
                await asyncio.sleep(0.005)

    async def hits_again(self) -> None:
        """Waits until answers come out of Redis."""
        before = self.hits
        await self.goes_on(lambda: self.hits >= before + 100)


@asynccontextmanager
async def under_traffic(redis: RedisServer, folder: Path) -> AsyncIterator[Traffic]:
    echo = EchoBackend("m")
    settings = replace(settings_for(echo, folder=folder, cache=REDIS_ONLY), redis_url=SecretStr(redis.url))
    async with serving(echo, folder=folder, settings=settings) as at:
        traffic = Traffic(at)
        traffic.begin()
        try:
            await traffic.hits_again()
            yield traffic
        finally:
            await traffic.end()


@pytest.fixture(autouse=True)
def _tries_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_LONGEST_PAUSE_S", 0.5)


async def left_out(traffic: Traffic) -> str:
    tier = (await traffic.at.server.gateway.cache_stats()).tiers[2]
    return tier.trouble


async def test_a_redis_that_is_killed(redis: RedisServer, tmp_path: Path) -> None:
    async with under_traffic(redis, tmp_path) as traffic:
        redis.kill()
        await traffic.goes_on()
        assert "left out for now" in await left_out(traffic)
        redis.start()
        await traffic.hits_again()
        assert await left_out(traffic) == ""


async def test_a_redis_that_hangs(redis: RedisServer, tmp_path: Path) -> None:
    async with under_traffic(redis, tmp_path) as traffic:
        redis.pause()
        await traffic.goes_on()
        assert "left out for now: took longer than" in await left_out(traffic)
        redis.resume()
        await traffic.hits_again()
        assert await left_out(traffic) == ""


async def test_a_redis_that_is_full_is_read_and_not_written(redis: RedisServer, tmp_path: Path) -> None:
    async with under_traffic(redis, tmp_path) as traffic:
        redis.fill()
        await traffic.hits_again()  # what it has, it still gives
        for i in range(8):
            request = pb.GenerateRequest(prompt=f"new {i}", temperature=0)
            answer = await traffic.at.inference.Generate(request, timeout=WAIT_S)
            assert answer.route.cache == pb.CACHE_RESULT_MISS
        await traffic.goes_on()
        async with asyncio.timeout(WAIT_S):
            while "not written to for now: " not in await left_out(traffic):  # noqa: ASYNC110 - written behind the calls
                await asyncio.sleep(0.005)
        redis.free()

        async def kept() -> bool:
            request = pb.GenerateRequest(prompt="after", temperature=0)
            answer = await traffic.at.inference.Generate(request, timeout=WAIT_S)
            return answer.route.cache == pb.CACHE_RESULT_HIT

        async with asyncio.timeout(WAIT_S):
            while not await kept():
                pass


async def test_a_server_begins_and_ends_and_tells_of_itself_while_redis_hangs(
    redis: RedisServer, tmp_path: Path
) -> None:
    redis.pause()
    echo = EchoBackend("m")
    settings = replace(settings_for(echo, folder=tmp_path, cache=CacheConfig()), redis_url=SecretStr(redis.url))
    async with serving(echo, folder=tmp_path, settings=settings) as at:
        for _ in range(5):
            assert await at.text("x", temperature=0) == "x"
        for _ in range(500):  # answers are written behind the call
            tiers = [(tier.name, tier.entries) for tier in (await at.server.gateway.cache_stats()).tiers]
            if tiers == [("memory", 1), ("disk", 1), ("redis", 0)]:
                break
            await asyncio.sleep(0.02)
        else:
            pytest.fail(f"the disk was not written: {tiers}")
        assert await at.server.gateway.invalidate_cache("m") == 1
        assert await at.text("x", temperature=0) == "x"
        assert len(echo.calls) == 2
