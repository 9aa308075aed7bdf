"""Generate and StreamGenerate on real sockets: answers, cancelling, deadlines and failures."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from structlog.testing import capture_logs

from polyroute.backends.echo import EchoBackend, Script
from polyroute.core.backend import ModelState
from polyroute.core.errors import ModelLoading, Overloaded, PeerFailed
from polyroute.core.event import FinishReason, Usage
from polyroute.v1 import inference_pb2 as pb
from tests.integration.grpc_serving import WAIT_S, refused, refused_stream, serving, until


async def test_unary_and_streamed_answers_are_equal_and_in_order(tmp_path: Path) -> None:
    texts = ["Grüße, ", "世界", " and ", "👩‍👩‍👧", " all"]
    usage = Usage(7, 5, 3)
    echo = EchoBackend(
        "m", script=Script(texts=texts, usage=usage, matched_stop="END", reason=FinishReason.STOP_SEQUENCE)
    )
    async with serving(echo, folder=tmp_path) as at:
        request = pb.GenerateRequest(prompt="x", request_id="mine-1", seed=4)
        whole = await at.inference.Generate(request)
        events = [event async for event in at.inference.StreamGenerate(request)]

    assert whole.text == "".join(texts)
    assert whole.request_id == "mine-1"
    assert whole.finish_reason == pb.FINISH_REASON_STOP_SEQUENCE
    assert (whole.matched_stop, whole.seed) == ("END", 4)
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens, whole.usage.cached_prompt_tokens) == (7, 5, 3)
    assert (whole.route.requested, whole.route.model, whole.route.version) == ("m", "m", "echo-1")
    assert whole.route.cache == pb.CACHE_RESULT_BYPASS
    assert len(whole.route.attempts) == 1
    assert not whole.route.attempts[0].HasField("error")
    assert len(whole.route.trace_id) == 32
    assert whole.created.seconds > 0
    assert whole.timing.total.ToNanoseconds() > 0

    assert [event.sequence for event in events] == list(range(len(texts) + 2))
    assert [event.WhichOneof("event") for event in events] == ["start", *["delta"] * len(texts), "end"]
    assert events[0].start.request_id == "mine-1"
    assert events[0].start.route.model == "m"
    assert "".join(event.delta.text for event in events[1:-1]) == whole.text
    assert events[-1].end.usage == whole.usage
    assert events[-1].end.matched_stop == "END"


async def test_an_id_is_made_where_the_caller_has_none_and_told_in_the_trailers(tmp_path: Path) -> None:
    async with serving(EchoBackend("m"), folder=tmp_path) as at:
        call = at.inference.Generate(pb.GenerateRequest(prompt="x"))
        answer = await call
        assert dict(await call.trailing_metadata())["x-request-id"] == answer.request_id
        again = await at.inference.Generate(pb.GenerateRequest(prompt="x"))
        assert answer.request_id != again.request_id


async def test_the_callers_trace_goes_on(tmp_path: Path) -> None:
    echo = EchoBackend("m")
    trace = "0af7651916cd43dd8448eb211c80319c"
    headers = (("traceparent", f"00-{trace}-b7ad6b7169203331-01"), ("tracestate", "a=1,b=2"))
    async with serving(echo, folder=tmp_path) as at:
        answer = await at.inference.Generate(pb.GenerateRequest(prompt="x"), metadata=headers)
        assert answer.route.trace_id == trace
        sent = echo.calls[0].trace.headers()
        assert sent["traceparent"].split("-")[1] == trace
        assert sent["tracestate"] == "a=1,b=2"

        other = await at.inference.Generate(pb.GenerateRequest(prompt="x"), metadata=(("traceparent", "nonsense"),))
        assert other.route.trace_id != trace


@pytest.mark.parametrize("streamed", [False, True])
async def test_cancelling_stops_the_work(tmp_path: Path, streamed: bool) -> None:
    echo = EchoBackend("m", script=Script(texts=["a", "b", "c"], gate=asyncio.Event(), gate_after=1))
    async with serving(echo, folder=tmp_path) as at:
        request = pb.GenerateRequest(prompt="x")
        call: Any
        if streamed:
            call = at.inference.StreamGenerate(request)
            assert (await call.read()).WhichOneof("event") == "start"
        else:
            call = at.inference.Generate(request)
            asking = asyncio.ensure_future(call)
        await until(lambda: echo.open == 1)
        call.cancel()
        await until(lambda: echo.open == 0)
        assert echo.closed_early == 1
        if not streamed:
            with pytest.raises(asyncio.CancelledError):
                await asking
        echo.script = Script()
        assert await at.text("next") == "next"


async def test_a_caller_that_goes_away_stops_the_work(tmp_path: Path) -> None:
    echo = EchoBackend("m", script=Script(texts=["a", "b"], gate=asyncio.Event(), gate_after=1))
    async with serving(echo, folder=tmp_path) as at:
        async with grpc.aio.insecure_channel(str(at.server.grpc_address)) as channel:
            stream = channel.unary_stream(
                "/polyroute.v1.InferenceService/StreamGenerate",
                request_serializer=pb.GenerateRequest.SerializeToString,
                response_deserializer=pb.GenerateEvent.FromString,
            )(pb.GenerateRequest(prompt="x"))
            await stream.read()
        await until(lambda: echo.open == 0)
        assert echo.closed_early == 1


async def test_a_slow_reader_holds_the_stream_back(tmp_path: Path) -> None:
    """Flow control reaches the backend: it is not asked for more than a bounded part of what nobody reads."""
    part = "x" * 64 * 1024
    echo = EchoBackend("m", script=Script(texts=[part] * 2000))
    taken = 0

    async def count(place: int) -> None:
        nonlocal taken
        taken = place

    echo.script = Script(texts=[part] * 2000, pause=count)
    async with serving(echo, folder=tmp_path) as at:
        stream = at.inference.StreamGenerate(pb.GenerateRequest(prompt="x"))
        await stream.read()
        before = -1
        while taken != before:  # until it stands still
            before = taken
            await asyncio.sleep(1)
        assert taken < 1000
        with capture_logs() as logged:
            stream.cancel()  # while the server is writing
            await until(lambda: echo.open == 0)
            assert await at.text("x", max_tokens=1)
        assert "rpc.failed" not in [line["event"] for line in logged], "a caller that leaves is no bug"


async def test_an_open_stream_does_not_hold_its_request(tmp_path: Path) -> None:
    """A conversation may have megabytes, and thousands of streams may be open for minutes."""
    echo = EchoBackend("m", script=Script(texts=["a", "b"], gate=asyncio.Event(), gate_after=1))
    before = {id(each): each for each in _requests()}
    async with serving(echo, folder=tmp_path) as at:
        begin = at.channel.unary_stream("/polyroute.v1.InferenceService/StreamGenerate")  # bytes, so that none is ours
        stream = begin(pb.GenerateRequest(prompt="x" * 100_000).SerializeToString(), timeout=WAIT_S)
        assert pb.GenerateEvent.FromString(await stream.read()).WhichOneof("event") == "start"
        await until(lambda: all(id(each) in before for each in _requests()))
        assert echo.open == 1
        stream.cancel()


def _requests() -> list[pb.GenerateRequest]:
    # By type: `isinstance` asks foreign objects for their class, and some of them warn of being asked.
    return [each for each in gc.get_objects() if type(each) is pb.GenerateRequest]


async def test_the_deadline_reaches_the_backend_and_ends_the_call(tmp_path: Path) -> None:
    echo = EchoBackend("m")
    async with serving(echo, folder=tmp_path) as at:
        await at.inference.Generate(pb.GenerateRequest(prompt="x"))
        await at.inference.Generate(pb.GenerateRequest(prompt="x"), timeout=1000)
        await at.inference.Generate(pb.GenerateRequest(prompt="x"), timeout=1e9)
        without, near, absurd = echo.calls
        assert without.deadline is None
        assert near.deadline is not None
        assert 900 < near.deadline - near.arrived < 1100  # gRPC rounds long ones
        assert absurd.deadline is None

        echo.script = Script(texts=["a", "b"], gate=asyncio.Event(), gate_after=1)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await at.inference.Generate(pb.GenerateRequest(prompt="x"), timeout=0.3)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: echo.open == 0)


async def test_what_passes_says_when_to_come_back(tmp_path: Path) -> None:
    echo = EchoBackend("m", script=Script(error=ModelLoading("`m` is being loaded", retry_after_s=2.5)))
    async with serving(echo, folder=tmp_path) as at:
        loading = await refused(at.inference.Generate(pb.GenerateRequest(prompt="x")))
        assert (loading.code, loading.reason) == (grpc.StatusCode.UNAVAILABLE, "MODEL_LOADING")
        assert loading.details[RetryInfo].retry_delay.ToMilliseconds() == 2500
        assert loading.trailers["grpc-retry-pushback-ms"] == "2500"

        echo.script = Script(error=Overloaded("`m`: 64 waiting, limit 64"))
        full = await refused(at.inference.Generate(pb.GenerateRequest(prompt="x")))
        assert (full.code, full.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
        assert int(full.trailers["grpc-retry-pushback-ms"]) > 0

        echo.state, echo.detail = ModelState.FAILED, "no such weights; set HF_TOKEN"
        failed = await refused(at.inference.Generate(pb.GenerateRequest(prompt="x")))
        assert failed.reason == "MODEL_FAILED"
        assert "HF_TOKEN" in failed.message


async def test_a_stream_that_breaks_ends_with_the_error(tmp_path: Path) -> None:
    echo = EchoBackend("m", script=Script(texts=["a", "b"], error=PeerFailed("it broke"), error_after=1))
    async with serving(echo, folder=tmp_path) as at:
        stream = at.inference.StreamGenerate(pb.GenerateRequest(prompt="x"))
        assert (await stream.read()).WhichOneof("event") == "start"
        assert (await stream.read()).delta.text == "a"
        error = await refused(stream.read())
        assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "PEER_FAILED")
        assert "it broke" in error.message


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_bug_of_ours_tells_the_request_id_and_nothing_else(tmp_path: Path, streamed: bool) -> None:
    echo = EchoBackend("m", script=Script(error=ZeroDivisionError("the secret sauce")))
    async with serving(echo, folder=tmp_path) as at:
        request = pb.GenerateRequest(prompt="x", request_id="r-77")
        if streamed:
            error = await refused_stream(at.inference.StreamGenerate(request))
        else:
            error = await refused(at.inference.Generate(request))
        assert (error.code, error.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
        assert "r-77" in error.message
        assert dict(error.details[ErrorInfo].metadata) == {"request_id": "r-77"}
        assert "sauce" not in str(error)
        assert "ZeroDivision" not in str(error)
        echo.script = Script()
        assert await at.text("next") == "next"


async def test_tokens_are_counted_and_feedback_needs_a_state_database(tmp_path: Path) -> None:
    async with serving(EchoBackend("m", context_length=99), folder=tmp_path) as at:
        count = await at.inference.CountTokens(pb.CountTokensRequest(prompt="one two three"))
        assert (count.prompt_tokens, count.context_length, count.model, count.version) == (3, 99, "m", "echo-1")
        error = await refused(at.inference.CountTokens(pb.CountTokensRequest()))
        assert error.field == "prompt"
        given = pb.RecordFeedbackRequest(request_id="x", metric="rating", number_value=4)
        error = await refused(at.inference.RecordFeedback(given, timeout=WAIT_S))
        assert error.code is grpc.StatusCode.UNIMPLEMENTED
        assert "this server keeps no records of experiments" in error.message
