"""A request whose very bytes came before is answered as any other, and by the rules that are in force now."""

from __future__ import annotations

from pathlib import Path

import grpc

from polyroute.backends.echo import EchoBackend, Script
from polyroute.core.config import CacheConfig
from polyroute.v1 import admin_pb2
from polyroute.v1 import inference_pb2 as pb
from tests.integration.grpc_serving import Serving, refused, serving
from tests.lines import captured_lines

ASKED = pb.GenerateRequest(prompt="a b", temperature=0)


async def kept(at: Serving, request: pb.GenerateRequest = ASKED) -> pb.GenerateResponse:
    """The first answer, once it is stored."""
    first = await at.inference.Generate(request)
    while (await at.inference.Generate(request)).route.cache != pb.CACHE_RESULT_HIT:
        pass  # it is written behind the answer
    return first


async def test_each_answer_has_its_own_id_trace_and_times(tmp_path: Path) -> None:
    echo = EchoBackend("m", script=Script(texts=["Grü", "ße"]))
    async with serving(echo, folder=tmp_path, cache=CacheConfig()) as at:
        first = await kept(at)
        calls = [at.inference.Generate(ASKED) for _ in range(5)]
        answers = [await call for call in calls]
        told = [dict(await call.trailing_metadata())["x-request-id"] for call in calls]
        assert len(echo.calls) == 1
    assert told == [answer.request_id for answer in answers]
    assert len(set(told)) == len({answer.route.trace_id for answer in answers}) == 5
    for answer in answers:
        assert (answer.text, answer.usage, answer.finish_reason) == (first.text, first.usage, first.finish_reason)
        assert answer.timing.total.ToNanoseconds() > 0
        assert answer.route.reasons[-1].startswith("cache: found in memory, stored ")


async def test_the_callers_trace_deadline_and_id_count_each_time(tmp_path: Path) -> None:
    parent = "00-" + "a" * 32 + "-" + "b" * 16 + "-00"
    async with serving(EchoBackend("m"), folder=tmp_path, cache=CacheConfig()) as at:
        await kept(at)
        with captured_lines() as logs:
            traced = await at.inference.Generate(ASKED, metadata=[("traceparent", parent)], timeout=60)
            named = await at.inference.Generate(pb.GenerateRequest(prompt="a b", temperature=0, request_id="mine"))
        assert traced.route.trace_id == "a" * 32
        assert named.request_id == "mine"
        assert named.route.cache == pb.CACHE_RESULT_HIT
        lines = [line for line in logs if line["event"] == "call.finished"]
        assert [line["request_id"] for line in lines] == [traced.request_id, "mine"]
        assert [line["entrance"] for line in lines] == ["polyroute.v1.InferenceService/Generate"] * 2


async def test_an_invalidated_answer_is_not_at_hand(tmp_path: Path) -> None:
    echo = EchoBackend("m")
    async with serving(echo, folder=tmp_path, cache=CacheConfig()) as at:
        await kept(at)
        await at.admin.InvalidateCache(admin_pb2.InvalidateCacheRequest(model="m"))
        assert (await at.inference.Generate(ASKED)).route.cache == pb.CACHE_RESULT_MISS
        assert len(echo.calls) == 2


async def test_a_server_that_leaves_gives_nothing(tmp_path: Path) -> None:
    async with serving(EchoBackend("m"), folder=tmp_path, cache=CacheConfig()) as at:
        await kept(at)
        await at.server.drain(1)
        error = await refused(at.inference.Generate(ASKED))
        assert error.code is grpc.StatusCode.UNAVAILABLE


async def test_bytes_that_are_no_message_are_refused_in_words(tmp_path: Path) -> None:
    async with serving(EchoBackend("m"), folder=tmp_path, cache=CacheConfig()) as at:
        generate = at.channel.unary_unary("/polyroute.v1.InferenceService/Generate")
        error = await refused(generate(b"\xff\xff"))
        assert error.code is grpc.StatusCode.INVALID_ARGUMENT
        assert "no message of this method's request type" in error.message
