"""Streamed answers against a real server: whole ones, broken ones, and those left early."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
import pytest

from polyroute.client import Cancelled, Client, DeadlineExceeded, FinishReason, ServerFault, Unavailable
from polyroute.v1 import inference_pb2 as pb
from tests.integration.client_peer import LIMIT_S, Failure, Peer, serving


async def test_deltas_come_and_then_the_whole_answer() -> None:
    async with serving(Peer()) as peer, Client(peer.address) as client:
        async with client.stream("x", request_id="mine") as stream:
            assert stream.route is None
            with pytest.raises(RuntimeError, match="not complete"):
                _ = stream.answer
            texts = []
            async for delta in stream:
                texts.append(delta.text)
                assert stream.route is not None
                assert stream.route.model == "demo"
        assert texts == ["Paris", "."]
        answer = stream.answer
        whole = await client.generate("x", request_id="mine")
    assert answer.text == whole.text == stream.text
    assert (answer.route, answer.usage, answer.request_id) == (whole.route, whole.usage, whole.request_id)
    assert (answer.finish_reason, answer.seed) == (FinishReason.STOP, 7)
    assert [delta async for delta in stream] == []


async def test_breaking_out_of_the_loop_stops_the_work() -> None:
    async with serving(Peer(endless=True)) as peer, Client(peer.address) as client:
        async for delta in client.stream("x"):
            assert delta.text == "Paris"
            await asyncio.wait_for(peer.streaming.wait(), LIMIT_S)
            break
        gc.collect()
        await asyncio.wait_for(peer.cancelled.wait(), LIMIT_S)


async def test_leaving_the_block_stops_the_work() -> None:
    async with serving(Peer(endless=True)) as peer, Client(peer.address) as client:
        async with client.stream("x") as stream:
            await anext(stream)
            await asyncio.wait_for(peer.streaming.wait(), LIMIT_S)
        await asyncio.wait_for(peer.cancelled.wait(), LIMIT_S)
        with pytest.raises(RuntimeError, match="not complete"):
            _ = stream.answer


async def test_a_generator_around_the_stream_closes_it() -> None:
    async def texts(client: Client) -> AsyncIterator[str]:
        async with client.stream("x") as stream:
            async for delta in stream:
                yield delta.text

    async with serving(Peer(endless=True)) as peer, Client(peer.address) as client:
        async with aclosing(texts(client)) as forwarded:
            assert await anext(forwarded) == "Paris"
            await asyncio.wait_for(peer.streaming.wait(), LIMIT_S)
        await asyncio.wait_for(peer.cancelled.wait(), LIMIT_S)


async def test_cancelling_the_reader_stops_the_work() -> None:
    async with serving(Peer(endless=True)) as peer, Client(peer.address) as client:
        task = asyncio.create_task(client.stream("x").read())
        await asyncio.wait_for(peer.streaming.wait(), LIMIT_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(peer.cancelled.wait(), LIMIT_S)


async def test_closing_a_stream_under_its_reader_fails_the_reader() -> None:
    async with serving(Peer(endless=True)) as peer, Client(peer.address) as client:
        stream = client.stream("x")
        task = asyncio.create_task(stream.read())
        await asyncio.wait_for(peer.streaming.wait(), LIMIT_S)
        await stream.aclose()
        with pytest.raises(Cancelled, match="closed"):
            await task


async def test_a_deadline_ends_a_stream() -> None:
    async with serving(Peer(endless=True)) as peer, Client(peer.address) as client:
        stream = client.stream("x", timeout=1)
        with pytest.raises(DeadlineExceeded):
            await stream.read()
        await asyncio.wait_for(peer.cancelled.wait(), LIMIT_S)


async def test_a_failure_in_the_middle_keeps_what_came() -> None:
    died = Failure(grpc.StatusCode.UNAVAILABLE, "the worker died", "WORKER_DIED")
    async with serving(Peer(late_failure=died)) as peer, Client(peer.address) as client:
        stream = client.stream("x")
        with pytest.raises(Unavailable, match="the worker died") as failed:
            await stream.read()
    assert failed.value.reason == "WORKER_DIED"
    assert stream.text == "Paris."


START = pb.GenerateEvent(start=pb.GenerateStart(request_id="q"))
DELTA = pb.GenerateEvent(delta=pb.GenerateDelta(text="x"))
END = pb.GenerateEvent(end=pb.GenerateEnd())


@pytest.mark.parametrize(
    "events",
    [[], [START], [START, DELTA], [DELTA, END], [START, START, END], [END], [START, END, DELTA]],
    ids=["none", "start-only", "no-end", "no-start", "two-starts", "end-only", "after-the-end"],
)
async def test_a_stream_that_breaks_the_protocol_is_no_answer(events: list[pb.GenerateEvent]) -> None:
    class Broken(Peer):
        async def StreamGenerate(self, request: Any, context: Any) -> AsyncIterator[Any]:
            for event in events:
                yield event

    async with serving(Broken()) as peer, Client(peer.address) as client:
        with pytest.raises(ServerFault, match="protocol"):
            await client.stream("x").read()


async def test_an_event_of_a_later_version_is_passed_over() -> None:
    class Later(Peer):
        async def StreamGenerate(self, request: Any, context: Any) -> AsyncIterator[Any]:
            yield START
            yield pb.GenerateEvent.FromString(b"\xfa\x01\x00")  # field 31, which this version does not know
            yield DELTA
            yield END

    async with serving(Later()) as peer, Client(peer.address) as client:
        assert (await client.stream("x").read()).text == "x"
