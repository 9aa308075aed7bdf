"""A repeat over gRPC is answered from the cache: whole, streamed as it was, and counted."""

from __future__ import annotations

from pathlib import Path

import grpc

from polyroute.backends.echo import EchoBackend, Script
from polyroute.core.config import CacheConfig
from polyroute.v1 import admin_pb2
from polyroute.v1 import inference_pb2 as pb
from tests.integration.grpc_serving import refused, serving, until


async def test_an_answer_tells_its_key_by_which_it_alone_is_removed(tmp_path: Path) -> None:
    echo = EchoBackend("m")
    async with serving(echo, folder=tmp_path, cache=CacheConfig()) as at:
        one, other = (pb.GenerateRequest(prompt=prompt, temperature=0) for prompt in ("one", "other"))
        key = (await at.inference.Generate(one)).route.cache_key
        assert key != (await at.inference.Generate(other)).route.cache_key
        for request in (one, other):
            while (await at.inference.Generate(request)).route.cache != pb.CACHE_RESULT_HIT:
                pass  # it is written behind the answer
        assert (await at.inference.Generate(one)).route.cache_key == key
        bypassing = pb.GenerateRequest(prompt="one", cache=pb.CacheOptions(mode=pb.CACHE_MODE_BYPASS))
        assert not (await at.inference.Generate(bypassing)).route.cache_key

        for wrong in ("x", key.upper(), key + "0", "../" + key):
            error = await refused(at.admin.InvalidateCache(admin_pb2.InvalidateCacheRequest(key=wrong)))
            assert (error.code, error.field) == (grpc.StatusCode.INVALID_ARGUMENT, "key")
        assert (await at.admin.InvalidateCache(admin_pb2.InvalidateCacheRequest(key=key))).removed == 1
        results = [(await at.inference.Generate(request)).route.cache for request in (one, other)]
        assert results == [pb.CACHE_RESULT_MISS, pb.CACHE_RESULT_HIT]
        assert (await at.admin.InvalidateCache(admin_pb2.InvalidateCacheRequest(key="0" * 64))).removed == 0


async def test_a_repeat_replays_the_deltas(tmp_path: Path) -> None:
    echo = EchoBackend("m", script=Script(texts=["Grü", "ße", " 👋"]))
    request = pb.GenerateRequest(prompt="x", temperature=0)
    async with serving(echo, folder=tmp_path, cache=CacheConfig()) as at:
        first = [event async for event in at.inference.StreamGenerate(request)]
        assert first[0].start.route.cache == pb.CACHE_RESULT_MISS

        async def stored() -> int:
            return (await at.admin.GetCacheStats(admin_pb2.GetCacheStatsRequest())).tiers[0].entries

        while not await stored():  # it is written behind the answer
            pass
        again = [event async for event in at.inference.StreamGenerate(request)]
        assert again[0].start.route.cache == pb.CACHE_RESULT_HIT
        assert again[0].start.route.HasField("cache_age")
        assert [event.delta.text for event in again[1:-1]] == ["Grü", "ße", " 👋"]
        assert again[-1].end.usage == first[-1].end.usage
        whole = await at.inference.Generate(request)
        assert (whole.text, whole.route.cache) == ("Grüße 👋", pb.CACHE_RESULT_HIT)
        await until(lambda: len(echo.calls) == 1)

        removed = await at.admin.InvalidateCache(admin_pb2.InvalidateCacheRequest(model="m"))
        assert removed.removed == 1
        request.cache.mode = pb.CACHE_MODE_ONLY_IF_CACHED
        error = await refused(at.inference.Generate(request))
        assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "NOT_CACHED")
