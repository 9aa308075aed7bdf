"""The client's calls against a real server: what is sent, what comes back, and how it fails."""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest

from polyroute.client import (
    AdminClient,
    Cancelled,
    Client,
    DeadlineExceeded,
    FinishReason,
    InvalidRequest,
    ModelState,
    Overloaded,
    RequestFailed,
    RolloutState,
    ServerFault,
    Tls,
    Unimplemented,
    UnknownModel,
    Unreachable,
)
from polyroute.v1 import models_pb2
from tests.integration.client_peer import LIMIT_S, Failure, Peer, serving

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_an_answer_comes_back_typed() -> None:
    async with serving(Peer()) as peer, Client(peer.address) as client:
        before = datetime.now(UTC)
        answer = await client.generate("The capital of France is", model="demo", temperature=0, request_id="mine")
    assert str(answer) == answer.text == "Paris."
    assert answer.finish_reason is FinishReason.STOP
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 2)
    assert answer.request_id == "mine"
    assert answer.created is not None
    assert answer.created.tzinfo is UTC
    assert abs((answer.created - before).total_seconds()) < LIMIT_S
    assert str(answer.route) == "answered by `demo` (version v1, cache miss)"
    (request,) = peer.requests("Generate")
    assert (request.prompt, request.model) == ("The capital of France is", "demo")
    assert request.HasField("temperature")
    assert not request.HasField("max_tokens")


async def test_messages_are_sent_as_a_conversation() -> None:
    async with serving(Peer()) as peer, Client(peer.address) as client:
        await client.generate([{"role": "user", "content": "Hello"}])
    (request,) = peer.requests("Generate")
    assert [(m.role, m.content) for m in request.messages.messages] == [("user", "Hello")]


async def test_token_trace_and_metadata_are_sent() -> None:
    async with serving(Peer()) as peer, Client(peer.address, token="s3cret") as client:
        await client.generate("x", traceparent=TRACE, metadata=[("tenant", "a")])
        await client.model(traceparent=TRACE)
    for _, _, metadata, remaining in peer.calls:
        assert metadata["authorization"] == "Bearer s3cret"
        assert metadata["traceparent"] == TRACE
        assert metadata["user-agent"].startswith("polyroute-python/")
        assert remaining is None or remaining > 10**6  # gRPC's way to say that there is no deadline
    assert peer.calls[0][2]["tenant"] == "a"


async def test_the_deadline_reaches_the_server_and_ends_the_call() -> None:
    async with serving(Peer(endless=True)) as peer, Client(peer.address, timeout=0.2) as client:
        with pytest.raises(DeadlineExceeded, match="timeout") as failed:
            await client.generate("x")
        assert failed.value.code == failed.value.reason == "DEADLINE_EXCEEDED"
        await asyncio.wait_for(peer.cancelled.wait(), LIMIT_S)
        assert (peer.calls[0][3] or 0) < 1
        peer.endless = False
        await client.generate("x", timeout=math.inf)
        assert (peer.calls[-1][3] or math.inf) > 10**6


async def test_cancelling_the_task_stops_the_work_on_the_server() -> None:
    async with serving(Peer(endless=True)) as peer, Client(peer.address) as client:
        task = asyncio.create_task(client.generate("x"))
        await asyncio.wait_for(peer.streaming.wait(), LIMIT_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(peer.cancelled.wait(), LIMIT_S)


async def test_closing_the_client_fails_its_calls_without_cancelling_their_tasks() -> None:
    async with serving(Peer(endless=True)) as peer:
        client = Client(peer.address)
        task = asyncio.create_task(client.generate("x"))
        await asyncio.wait_for(peer.streaming.wait(), LIMIT_S)
        await client.close()
        with pytest.raises(Cancelled, match="closed"):
            await task
        with pytest.raises(RuntimeError, match="closed"):
            await client.generate("x")


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (Failure(grpc.StatusCode.NOT_FOUND, "model: no model or route `x`", "UNKNOWN_MODEL"), UnknownModel),
        (Failure(grpc.StatusCode.INVALID_ARGUMENT, "top_p: 2", "INVALID_ARGUMENT", field="top_p"), InvalidRequest),
        (Failure(grpc.StatusCode.INTERNAL, "internal error", "INTERNAL"), ServerFault),
        (Failure(grpc.StatusCode.UNKNOWN), ServerFault),
        (Failure(grpc.StatusCode.UNIMPLEMENTED, "later", "UNIMPLEMENTED"), Unimplemented),
    ],
    ids=lambda value: value.code.name if isinstance(value, Failure) else "",
)
async def test_a_failure_is_an_exception_of_its_kind(failure: Failure, kind: type[RequestFailed]) -> None:
    async with serving(Peer(failures=[failure])) as peer, Client(peer.address) as client:
        with pytest.raises(kind) as failed:
            await client.generate("x")
    error = failed.value
    assert type(error) is kind
    assert (error.code, error.reason) == (failure.code.name, failure.reason or failure.code.name)
    assert error.message == failure.message
    assert [v.field for v in error.violations] == ([failure.field] if failure.field else [])
    assert len(peer.calls) == 1, "what would fail again is not repeated"


async def test_overload_says_when_to_try_again() -> None:
    busy = Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", "OVERLOADED", retry_after_s=9)
    async with serving(Peer(failures=[busy])) as peer, Client(peer.address, retries=0) as client:
        with pytest.raises(Overloaded) as failed:
            await client.generate("x")
    assert failed.value.retry_after_s == 9


async def test_no_server_is_said_with_the_address_and_what_to_do() -> None:
    async with serving(Peer()) as peer:
        pass
    async with Client(peer.address) as client:
        with pytest.raises(Unreachable) as failed:
            await asyncio.wait_for(client.generate("x"), LIMIT_S)
    assert peer.address in str(failed.value)
    assert "polyroute serve" in str(failed.value)


async def test_a_server_that_is_back_is_found_again() -> None:
    async with serving(Peer()) as first:
        pass
    async with Client(first.address) as client:
        with pytest.raises(Unreachable):
            await client.generate("x")
        async with serving(Peer(), address=first.address), asyncio.timeout(LIMIT_S):
            while True:
                try:
                    await client.generate("x")
                    break
                except Unreachable:
                    await asyncio.sleep(0.05)


async def test_models_are_listed_over_pages() -> None:
    listed = [models_pb2.Model(id=f"m{i}", state=models_pb2.MODEL_STATE_COLD) for i in range(5)]
    async with serving(Peer(models=listed)) as peer, Client(peer.address) as client:
        found = [model async for model in client.models(page_size=2)]
        assert (await client.model("m0")).id == "m0"
    assert [model.id for model in found] == ["m0", "m1", "m2", "m3", "m4"]
    assert found[0].state is ModelState.COLD
    assert len(peer.requests("ListModels")) == 3


async def test_explain_count_and_feedback() -> None:
    async with serving(Peer()) as peer, Client(peer.address) as client:
        plan = await client.explain("x", temperature=0)
        count = await client.count_tokens([{"role": "user", "content": "x"}], model="demo")
        assert await client.record_feedback("id", "resolved", True)
        assert await client.record_feedback("id", "rating", 4, observed=datetime(2030, 1, 1, tzinfo=UTC))
        with pytest.raises(ValueError, match="time zone"):
            await client.record_feedback("id", "rating", 4, observed=datetime(2030, 1, 1))
    assert str(plan) == "demo\n  1. demo (warm)\n  because it is the default"
    assert (count.prompt_tokens, count.context_length) == (5, 8192)
    yes, rating = peer.requests("RecordFeedback")
    assert (yes.WhichOneof("value"), yes.bool_value) == ("bool_value", True)
    assert (rating.WhichOneof("value"), rating.number_value) == ("number_value", 4.0)
    assert rating.observed.seconds == 1893456000
    assert peer.requests("ExplainRoute")[0].request.prompt == "x"


async def test_an_operators_calls() -> None:
    async with serving(Peer()) as peer, AdminClient(peer.address) as admin:
        assert (await admin.load("demo", wait=True)).state is ModelState.WARM
        await admin.unload("demo", grace_s=1.5)
        assert (await admin.reload()).added == ("new",)
        assert str((await admin.reload(dry_run=True)).problems[0]) == "models.yaml:3: models[0].id: is missing"
        stats = await admin.cache_stats("demo")
        assert await admin.cache_clear("demo") == 4
        (listed,) = [rollout async for rollout in admin.rollouts()]
        shown = await admin.rollout("chat")
        for steer in (admin.pause_rollout, admin.resume_rollout, admin.promote_rollout, admin.roll_back_rollout):
            assert (await steer("chat", reason="because")).route == "chat"
        report = await admin.experiment_report("chat", since=datetime(2030, 1, 1, tzinfo=UTC))
    assert peer.requests("UnloadModel")[0].grace.ToMilliseconds() == 1500
    assert (stats.tiers[0].entries, stats.models[0].saved_time_s) == (4, 1.5)
    assert listed == shown
    assert (shown.from_variant, shown.to_variant, shown.state) == ("old", "new", RolloutState.RUNNING)
    assert report.summary == "No difference yet."
    for method in ("PauseRollout", "ResumeRollout", "PromoteRollout", "RollBackRollout"):
        assert [request.reason for request in peer.requests(method)] == ["because"]


async def test_a_large_answer_passes() -> None:
    async with serving(Peer(deltas=("x" * 10_000_000,))) as peer, Client(peer.address) as client:
        assert len((await client.generate("x")).text) == 10_000_000


async def test_a_unix_socket_serves_too(tmp_path: Path) -> None:
    async with serving(Peer(), address=f"unix:{tmp_path}/s") as peer, Client(peer.address) as client:
        assert (await client.generate("x")).text == "Paris."


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"timeout": 0}, "timeout"),
        ({"timeout": math.nan}, "timeout"),
        ({"retries": 5}, "retries"),
        ({"keepalive_s": 0}, "keepalive_s"),
        ({"token": "two\nlines"}, "token"),
        ({"tls": Tls(cert_file="only.pem")}, "key_file"),
        ({"address": "https://host", "tls": False}, "TLS"),
        ({"address": "http://host", "tls": Tls()}, "TLS"),
        ({"address": "a b"}, "address"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_at_once(arguments: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as refused:
        Client(**arguments)  # type: ignore[arg-type]
    assert "two" not in str(refused.value), "a token is not repeated"


async def test_a_bad_trace_parent_is_refused() -> None:
    async with Client() as client:
        with pytest.raises(ValueError, match="traceparent"):
            await client.generate("x", traceparent="00-zz")
