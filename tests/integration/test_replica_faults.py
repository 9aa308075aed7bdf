"""One of two replicas fails in every way there is: what the caller sees of it, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import grpc.aio
import pytest
from google.rpc.error_details_pb2 import RetryInfo

from polyroute.core.backend import ModelState, ReplicaStatus
from polyroute.core.config import RemoteConfig
from polyroute.v1 import inference_pb2 as pb
from tests.integration.grpc_serving import Serving, refusal_of, refused, serving
from tests.integration.peers import (
    SSE,
    WAIT_S,
    Connection,
    PeerRequest,
    Play,
    ScriptedPeer,
    answering,
    chunk,
    data,
    head,
    in_turn,
    models,
    streaming,
    until,
)
from tests.integration.test_grpc_cancel import settings_of

COMPLETIONS = "/v1/completions"
BEGIN = data({"choices": [{"index": 0, "text": "fine"}]})
END = data({"choices": [{"index": 0, "text": "", "finish_reason": "stop"}]})
FINE = streaming(BEGIN, END)
ERROR = answering(b"broken", kind="text/plain", status="500 Internal Server Error")


async def reset(connection: Connection, _request: PeerRequest) -> None:
    connection.reset()


def together(count: int, play: Play) -> Play:
    """Plays for none before so many requests are there, all of which were sent before any had failed."""
    here, all_there = itertools.count(1), asyncio.Event()

    async def held(connection: Connection, request: PeerRequest) -> None:
        if next(here) >= count:
            all_there.set()
        await all_there.wait()
        await play(connection, request)

    return held


async def silent(_connection: Connection, _request: PeerRequest) -> None:
    """Never answers."""


async def cut(connection: Connection, _request: PeerRequest) -> None:
    """Begins an answer, and resets the connection once the caller must have read that."""
    await connection.send(head(SSE), chunk(BEGIN))
    asyncio.get_running_loop().call_later(0.1, connection.reset)


@pytest.fixture
async def peers() -> AsyncIterator[tuple[ScriptedPeer, ScriptedPeer]]:
    """The one that a test makes ill, and the one that is well."""
    both = tuple(ScriptedPeer({"/v1/models": models(), COMPLETIONS: FINE}) for _ in range(2))
    for peer in both:
        await peer.listen()
    yield both[0], both[1]
    for peer in both:
        await peer.hang_up()


Serve: TypeAlias = Callable[..., AbstractAsyncContextManager[Serving]]


@pytest.fixture
def serve(peers: tuple[ScriptedPeer, ScriptedPeer], tmp_path: Path) -> Serve:
    """A server with the model `m` at both peers, and the baseline that it must come back to."""

    @asynccontextmanager
    async def _serve(**config: Any) -> AsyncIterator[Serving]:
        before = asyncio.all_tasks()
        options = {"api": "openai", "balance": "round_robin", "max_concurrency": 32, "max_queue": 500, **config}
        model = RemoteConfig(id="m", type="remote", base_urls=tuple(peer.url for peer in peers), **options)
        async with serving(folder=tmp_path, settings=settings_of(model, tmp_path)) as at:
            view = lambda: at.server.gateway.model("m")  # noqa: E731
            await until(lambda: {r.state for r in view().status.replicas} == {ModelState.WARM}, "both were reached")
            yield at
            await until(lambda: (view().in_flight, view().queued) == (0, 0), "every permit came back")
            await until(lambda: [r.in_flight for r in view().status.replicas] == [0, 0], "no replica has a call")
        for peer in peers:
            await until(lambda peer=peer: peer.open == 0, "every socket was closed")  # type: ignore[misc]
        others = before | {connection.task for peer in peers for connection in peer.connections}
        await until(lambda: asyncio.all_tasks() <= others, "every task ended")

    return _serve


def ask(at: Serving, timeout: float = WAIT_S, **fields: Any) -> Coroutine[Any, Any, pb.GenerateResponse]:
    async def answer() -> pb.GenerateResponse:
        response: pb.GenerateResponse = await at.inference.Generate(
            pb.GenerateRequest(prompt="hi", **fields), timeout=timeout
        )
        assert response.text == "fine"
        return response

    return answer()


async def many(at: Serving, calls: int, **options: Any) -> list[pb.GenerateResponse]:
    """So many calls at once, none of which may fail."""
    return list(await asyncio.gather(*(ask(at, **options) for _ in range(calls))))


def replica_of(at: Serving, peer: ScriptedPeer) -> ReplicaStatus:
    return next(r for r in at.server.gateway.model("m").status.replicas if r.name == peer.url)


FAULTS: dict[str, Play] = {
    "resets before the first token": reset,
    "answers 500": ERROR,
    "answers 503": answering(b"busy", status="503 Service Unavailable"),
    "answers something else": answering(b"<html>", kind="text/html"),
    "ends before its answer": streaming(complete=False),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_no_call_fails_that_had_not_begun_to_answer(
    peers: tuple[ScriptedPeer, ScriptedPeer], serve: Serve, fault: str
) -> None:
    ill, well = peers
    ill.plays[COMPLETIONS] = together(8, FAULTS[fault])
    async with serve(breaker={"open": "60s", "max_open": "60s", "failures": 5}) as at:
        answers = await many(at, 100)
        assert {answer.route.replica for answer in answers} == {well.url}
        retried = [answer.route for answer in answers if len(answer.route.attempts) > 1]
        assert retried
        assert {route.attempts[0].replica for route in retried} == {ill.url}
        assert all(route.attempts[0].error.reason for route in retried)
        before = len(ill.calls(COMPLETIONS))
        assert before <= 33  # as many as may be in flight at once, and a trial: afterwards it is left alone
        assert (replica_of(at, ill).breaker, replica_of(at, well).breaker) == ("open", "closed")
        await many(at, 20)
        assert len(ill.calls(COMPLETIONS)) <= before + 1


async def test_a_replica_that_refuses_connections(peers: tuple[ScriptedPeer, ScriptedPeer], serve: Serve) -> None:
    ill, well = peers
    async with serve() as at:
        await many(at, 20)
        await ill.hang_up()
        answers = await many(at, 100)
        assert {answer.route.replica for answer in answers} == {well.url}
        await ill.listen()
        await until(lambda: replica_of(at, ill).state.name == "WARM", "the probes found it")
        routes = [(await ask(at)).route for _ in range(20)]
        assert ill.url in {route.replica for route in routes}


async def test_a_reset_after_the_first_token_is_the_callers_to_see(
    peers: tuple[ScriptedPeer, ScriptedPeer], serve: Serve
) -> None:
    for peer in peers:
        peer.plays[COMPLETIONS] = cut
    async with serve() as at:
        events: list[pb.GenerateEvent] = []
        with pytest.raises(grpc.aio.AioRpcError) as raised:  # noqa: PT012
            async for event in at.inference.StreamGenerate(pb.GenerateRequest(prompt="hi"), timeout=WAIT_S):
                events.append(event)  # noqa: PERF401
        assert "".join(event.delta.text for event in events) == "fine"
        failed = refusal_of(raised.value)
        assert (failed.code, failed.reason) == (grpc.StatusCode.UNAVAILABLE, "PEER_FAILED")
        assert sum(len(peer.calls(COMPLETIONS)) for peer in peers) == 1


async def test_a_replica_that_hangs_is_given_up_for_another(
    peers: tuple[ScriptedPeer, ScriptedPeer], serve: Serve
) -> None:
    ill, well = peers
    ill.plays[COMPLETIONS] = silent
    async with serve(first_token_timeout=0.2, breaker={"failures": 2, "open": "60s", "max_open": "60s"}) as at:
        for _ in range(6):
            assert (await ask(at)).route.replica == well.url
        hung = ill.calls(COMPLETIONS)
        assert len(hung) == 2
        await until(lambda: all(call.connection.gone.is_set() for call in hung), "its sockets were closed")
        assert "no first token within 0.2 s" in replica_of(at, ill).detail


async def test_a_replica_that_hangs_does_not_use_up_the_deadline(
    peers: tuple[ScriptedPeer, ScriptedPeer], serve: Serve
) -> None:
    ill, well = peers
    ill.plays[COMPLETIONS] = silent
    async with serve() as at:
        answers = await many(at, 2, timeout=2.0)
        assert {answer.route.replica for answer in answers} == {well.url}


async def test_a_replica_that_is_a_hundred_times_slower_is_hedged(
    peers: tuple[ScriptedPeer, ScriptedPeer], serve: Serve
) -> None:
    ill, well = peers
    ill.plays[COMPLETIONS] = silent
    async with serve(hedge={"after": 0.05}) as at:
        answers = [await ask(at) for _ in range(4)]
        assert {answer.route.replica for answer in answers} == {well.url}
        assert all(len(answer.route.attempts) == 1 for answer in answers)  # the slow one has not failed
        slow = ill.calls(COMPLETIONS)
        assert slow
        await until(lambda: all(call.connection.gone.is_set() for call in slow), "the loser's socket was closed")
        won = {"deployment": "m", "outcome": "won"}
        assert at.server.registry.get_sample_value("polyroute_hedges_total", won) == len(slow)


async def test_a_slow_replica_gets_less_and_fails_nothing(
    peers: tuple[ScriptedPeer, ScriptedPeer], serve: Serve
) -> None:
    ill, well = peers

    async def slow(connection: Connection, request: PeerRequest) -> None:
        await asyncio.sleep(0.2)
        await FINE(connection, request)

    ill.plays[COMPLETIONS] = slow
    async with serve(balance="least_outstanding", max_concurrency=4) as at:
        await many(at, 60)
        assert len(ill.calls(COMPLETIONS)) < len(well.calls(COMPLETIONS))


async def test_a_replica_that_answers_429_is_spared_until_its_retry_after(
    peers: tuple[ScriptedPeer, ScriptedPeer], serve: Serve
) -> None:
    ill, well = peers
    ill.plays[COMPLETIONS] = answering(b"{}", "Retry-After: 600", status="429 Too Many Requests")
    async with serve() as at:
        for _ in range(20):
            assert (await ask(at)).route.replica == well.url
        assert len(ill.calls(COMPLETIONS)) == 1
        assert replica_of(at, ill).breaker == "closed"
        assert "asked to be spared for" in replica_of(at, ill).detail
        well.plays[COMPLETIONS] = answering(b"{}", "Retry-After: 600", status="429 Too Many Requests")
        refusal = await refused(ask(at))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
        assert refusal.details[RetryInfo].retry_delay.seconds == 600


async def test_a_replica_that_flaps_fails_no_call(peers: tuple[ScriptedPeer, ScriptedPeer], serve: Serve) -> None:
    ill, _ = peers
    ill.plays[COMPLETIONS] = in_turn(*[FINE, reset, ERROR, FINE, reset] * 30, FINE)
    async with serve(breaker={"failures": 2, "open": "20ms", "max_open": "50ms"}) as at:
        for _ in range(10):
            await many(at, 20)


async def test_a_request_that_one_refuses_is_not_taken_to_another(
    peers: tuple[ScriptedPeer, ScriptedPeer], serve: Serve
) -> None:
    for peer in peers:
        peer.plays[COMPLETIONS] = answering(b'{"error":{"message":"no"}}', status="400 Bad Request")
    async with serve() as at:
        refusal = await refused(ask(at))
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
        assert sum(len(peer.calls(COMPLETIONS)) for peer in peers) == 1


async def test_with_no_healthy_replica_a_call_is_refused_at_once_and_told_when_to_come_back(
    peers: tuple[ScriptedPeer, ScriptedPeer], serve: Serve
) -> None:
    for peer in peers:
        peer.plays[COMPLETIONS] = ERROR
    async with serve(breaker={"failures": 1, "open": "9s"}) as at:
        first = await refused(ask(at))
        assert (first.code, first.reason) == (grpc.StatusCode.UNAVAILABLE, "PEER_FAILED")
        asked = sum(len(peer.calls(COMPLETIONS)) for peer in peers)
        second = await refused(ask(at))
        assert (second.code, second.reason) == (grpc.StatusCode.UNAVAILABLE, "NO_HEALTHY_REPLICA")
        assert 1 <= second.details[RetryInfo].retry_delay.seconds <= 9
        assert sum(len(peer.calls(COMPLETIONS)) for peer in peers) == asked


async def test_a_caller_that_leaves_amid_a_retry_leaves_nothing(
    peers: tuple[ScriptedPeer, ScriptedPeer], serve: Serve
) -> None:
    ill, well = peers
    ill.plays[COMPLETIONS], well.plays[COMPLETIONS] = ERROR, silent
    async with serve() as at:
        calls = [asyncio.create_task(ask(at)) for _ in range(10)]
        await until(lambda: len(well.calls(COMPLETIONS)) == 10, "every call hangs at the second")
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
