"""Every call leaves one log line and its counts, however it ends, and a span where it is sampled."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from polyroute.backends.echo import EchoBackend, Script
from polyroute.core.call import Call, Entrance, Service
from polyroute.core.errors import (
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    Overloaded,
    PeerFailed,
    PolyrouteError,
    UnknownModel,
)
from polyroute.core.event import Attempt, Event, Finished, FinishReason, Route, Started, Token, Usage, Whole
from polyroute.core.request import Message, Request
from polyroute.core.trace import SAMPLED, Span, Trace, Value, new_trace_id, parse
from polyroute.routing.layers.observed import Observed
from polyroute.routing.metrics import Metrics
from polyroute.routing.streams import generator
from tests.counts import total
from tests.lines import captured_lines

SECRET = "the prompt that nobody may log"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def call(**options: Any) -> Call:
    return Call(Request(model="m", prompt=SECRET, labels={"team": "x"}), "r1", **options)


@pytest.fixture
def spans() -> list[Span]:
    return []


@pytest.fixture
def observe(metrics: Metrics, spans: list[Span]) -> Callable[..., Observed]:
    def begin(parent: Trace, name: str, attributes: Callable[[], Mapping[str, Value]]) -> Trace:
        trace = Trace(parent.trace_id or new_trace_id(), parent.span_id, SAMPLED, parent.state)
        return trace.under(Span(name, "server", trace, spans.append, attributes()))

    return lambda **options: Observed(metrics, **{"begin": begin, **options})


def told(observed: Observed, inner: Service) -> Service:
    """A service whose calls are watched."""

    async def service(call: Call) -> AsyncIterator[Event]:
        with observed.watch(call) as watch:
            async with aclosing(generator(inner(watch.call))) as events:
                async for event in events:
                    yield watch.saw(event)
                    watch.taken(event)

    return service


@pytest.fixture
def make(observe: Callable[..., Observed]) -> Callable[..., Service]:
    return lambda inner, **options: told(observe(**options), inner)


def outcomes(registry: CollectorRegistry, outcome: str, model: str = "m", cache: str = "unspecified") -> float | None:
    labels = {"model": model, "cache": cache, "outcome": outcome}
    return total(registry, "polyroute_requests_total", **labels)


async def test_a_call_that_goes_well(
    make: Callable[..., Service], take: Callable[..., Any], registry: CollectorRegistry, spans: list[Span]
) -> None:
    with captured_lines() as logs:
        events = await take(make(EchoBackend("m").stream), call(trace=parse(PARENT)))
    (line,) = logs
    assert (line["event"], line["log_level"], line["outcome"]) == ("call.finished", "info", "ok")
    assert (line["request_id"], line["model"], line["version"], line["replica"]) == ("r1", "m", "echo-1", "echo")
    assert line["trace_id"] == events[0].route.trace_id == "0af7651916cd43dd8448eb211c80319c"
    assert (line["prompt_tokens"], line["completion_tokens"]) == (6, 6)
    (span,) = spans
    assert span.parent_id == "b7ad6b7169203331"
    assert span.ended_ns
    assert span.error is None
    assert span.attributes["polyroute.label.team"] == "x"
    assert span.attributes["gen_ai.operation.name"] == "text_completion"
    assert span.attributes["gen_ai.usage.output_tokens"] == 6
    assert span.attributes["gen_ai.response.finish_reasons"] == ("stop",)
    assert "error.type" not in span.attributes
    assert line["span_id"] == span.span_id
    assert outcomes(registry, "ok") == 1
    assert total(registry, "gen_ai_client_token_usage_sum", gen_ai_token_type="output") == 6
    assert total(registry, "gen_ai_server_request_duration_seconds_count", gen_ai_response_model="m") == 1
    assert registry.get_sample_value("polyroute_requests_in_flight") == 0


async def test_what_is_said_never_leaves_a_trace(
    make: Callable[..., Service], take: Callable[..., Any], registry: CollectorRegistry, spans: list[Span]
) -> None:
    with captured_lines() as logs:
        await take(make(EchoBackend("m").stream), call())
    text = repr(logs) + repr([(span.attributes, span.events, span.error) for span in spans])
    assert "nobody may log" not in text
    assert "nobody" not in text


async def test_the_model_gets_the_new_span_as_its_parent(
    make: Callable[..., Service], take: Callable[..., Any], spans: list[Span]
) -> None:
    backend = EchoBackend("m")
    await take(make(backend.stream), call(trace=parse(PARENT, "a=b")))
    (span,) = spans
    passed = backend.calls[0].trace.headers()
    assert passed["traceparent"] == f"00-0af7651916cd43dd8448eb211c80319c-{span.span_id}-01"
    assert passed["tracestate"] == "a=b"


async def test_there_is_a_trace_even_where_nobody_records_one(metrics: Metrics, take: Callable[..., Any]) -> None:
    backend = EchoBackend("m")
    service = told(Observed(metrics), backend.stream)
    first, second = [(await take(service, call()))[0].route.trace_id for _ in range(2)]
    assert first != second
    assert len(first) == 32
    assert backend.calls[0].trace.headers()["traceparent"].startswith(f"00-{first}-")
    kept = await take(service, call(trace=parse(PARENT)))
    assert kept[0].route.trace_id == "0af7651916cd43dd8448eb211c80319c"
    assert backend.calls[-1].trace == parse(PARENT)


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (InvalidArgument("prompt", "bad"), "info"),
        (UnknownModel("n"), "info"),
        (Overloaded("no room"), "info"),
        (PeerFailed("bad"), "warning"),
        (DeadlineExceeded("late"), "warning"),
    ],
)
async def test_a_call_that_fails_is_counted_by_its_reason(
    make: Callable[..., Service],
    take: Callable[..., Any],
    registry: CollectorRegistry,
    spans: list[Span],
    error: PolyrouteError,
    level: str,
) -> None:
    backend = EchoBackend("m", script=Script(error=error))
    with captured_lines() as logs, pytest.raises(type(error)):
        await take(make(backend.stream), call())
    (line,) = logs
    assert (line["log_level"], line["outcome"], line["error"]) == (level, error.reason, error.message)
    (span,) = spans
    assert span.attributes["error.type"] == error.reason
    assert span.error == (error.message if level == "warning" else None)  # what a caller did wrong is none of ours
    assert outcomes(registry, error.reason) == 1
    assert total(registry, "gen_ai_server_time_to_first_token_seconds_count") is None
    assert registry.get_sample_value("polyroute_requests_in_flight") == 0


async def test_a_failed_calls_attempts_are_logged(make: Callable[..., Service], take: Callable[..., Any]) -> None:
    error = PeerFailed("bad").after(
        (Attempt("n", reason="OVERLOADED"), Attempt("m", "r0", reason="PEER_FAILED")), "bad"
    )
    with captured_lines() as logs, pytest.raises(PeerFailed):
        await take(make(EchoBackend("m", script=Script(error=error)).stream), call())
    assert logs[0]["attempts"] == ["n: OVERLOADED", "m at r0: PEER_FAILED"]
    assert logs[0]["deployment"] == "m"


async def test_a_bug_is_logged_and_the_caller_learns_the_request_id_only(
    make: Callable[..., Service], take: Callable[..., Any], registry: CollectorRegistry
) -> None:
    backend = EchoBackend("m", script=Script(error=ZeroDivisionError("inner secrets")))
    with captured_lines() as logs, pytest.raises(Internal) as failed:
        await take(make(backend.stream), call())
    assert "r1" in failed.value.message
    assert "secrets" not in failed.value.message
    assert [(line["event"], line["log_level"]) for line in logs] == [
        ("call.crashed", "error"),
        ("call.finished", "error"),
    ]
    assert logs[0]["exc_info"]
    assert outcomes(registry, "INTERNAL") == 1


async def test_a_caller_that_leaves_is_counted_as_cancelled(
    make: Callable[..., Service], take: Callable[..., Any], registry: CollectorRegistry, spans: list[Span]
) -> None:
    backend = EchoBackend("m")
    with captured_lines() as logs:
        await take(make(backend.stream), call(), most=2)
    assert backend.open == 0
    assert (logs[0]["outcome"], logs[0]["log_level"]) == ("CANCELLED", "info")
    assert outcomes(registry, "CANCELLED") == 1
    assert spans[0].attributes["error.type"] == "CANCELLED"
    assert spans[0].error is None


async def test_a_cancelled_task_is_counted_as_cancelled(
    make: Callable[..., Service], take: Callable[..., Any], until: Callable[..., Any], registry: CollectorRegistry
) -> None:
    backend = EchoBackend("m", script=Script(gate=asyncio.Event()))
    task = asyncio.create_task(take(make(backend.stream), call()))
    await until(lambda: backend.open)
    assert registry.get_sample_value("polyroute_requests_in_flight") == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert backend.open == 0
    assert outcomes(registry, "CANCELLED") == 1
    assert registry.get_sample_value("polyroute_requests_in_flight") == 0


async def test_who_has_the_end_did_not_leave_early(
    make: Callable[..., Service], take: Callable[..., Any], registry: CollectorRegistry
) -> None:
    events = await take(make(EchoBackend("m", script=Script(texts=["x"])).stream), call(), most=3)
    assert isinstance(events[-1], Finished)
    assert outcomes(registry, "ok") == 1


@pytest.mark.parametrize(("comes_back", "outcome"), [(True, "ok"), (False, "CANCELLED")])
async def test_a_whole_answer_is_had_by_who_comes_back_for_more(
    make: Callable[..., Service], spans: list[Span], comes_back: bool, outcome: str
) -> None:
    async def inner(call: Call) -> AsyncIterator[Event]:
        started = Started(Route(model="m", trace_id=call.trace.trace_id))
        yield Whole(started, (Token("an "), Token("answer")), Finished(FinishReason.STOP, Usage(3, 2)))

    observed = make(inner, content_chars=5)
    with captured_lines() as logs:
        async with aclosing(generator(observed(call()))) as events:
            whole = await anext(events)
            if comes_back:
                assert [event async for event in events] == []
    assert isinstance(whole, Whole)
    assert whole.finished.timing.total_s >= whole.finished.timing.first_token_s > 0
    (line,) = logs
    assert (line["outcome"], line["model"]) == (outcome, "m")
    assert (line["prompt_tokens"], line["completion_tokens"]) == (3, 2)
    assert (line["router_overhead_s"] > 0) == comes_back
    assert "an an" in str(spans[0].attributes["gen_ai.output.messages"])


async def test_a_call_whose_trace_cannot_begin_is_not_in_flight_for_ever(
    metrics: Metrics, take: Callable[..., Any], registry: CollectorRegistry
) -> None:
    """Samplers may be anybody's."""

    def begin(parent: Trace, name: str, attributes: Callable[[], Mapping[str, Value]]) -> Trace:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await take(told(Observed(metrics, begin=begin), EchoBackend("m").stream), call())
    assert registry.get_sample_value("polyroute_requests_in_flight") == 0


async def test_names_that_callers_make_up_become_no_labels(
    make: Callable[..., Service], take: Callable[..., Any], registry: CollectorRegistry
) -> None:
    for i in range(100):
        backend = EchoBackend("m", script=Script(error=UnknownModel(f"made-up-{i}")))
        with pytest.raises(UnknownModel):
            await take(make(backend.stream), Call(Request(model=f"made-up-{i}", prompt="x"), f"r{i}"))
    assert outcomes(registry, "UNKNOWN_MODEL", model="_other") == 100
    assert "made-up" not in repr([sample for family in registry.collect() for sample in family.samples])


async def test_the_timing_adds_up(make: Callable[..., Service]) -> None:
    now = 10.0

    async def inner(_: Call) -> AsyncIterator[Event]:
        nonlocal now
        events = [event async for event in EchoBackend("m", script=Script(texts=["x"])).stream(call())]
        now += 3  # queue 1, model 1.5, and half a second of ours
        yield events[0]
        yield events[1]
        now += 2  # the model's
        assert isinstance(events[2], Finished)
        timing = type(events[2].timing)(queue_s=1, backend_s=3.5)
        yield Finished(events[2].reason, events[2].usage, timing)

    observed = make(inner, clock=lambda: now)
    seen: list[Event] = []
    async with aclosing(generator(observed(call(arrived=10.0)))) as events:
        async for event in events:
            seen.append(event)
            now += 100 if isinstance(event, Started) else 0  # a slow reader
    finished = seen[-1]
    assert isinstance(finished, Finished)
    assert finished.timing.first_token_s == 3
    assert finished.timing.total_s == 105
    assert finished.timing.router_overhead_s == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("given_s", "left_after_s", "late"),
    [(500, 500, True), (500, 499.8, True), (500, 499.7, False), (1, 0.85, True), (1, 0.75, False)],
)
async def test_a_stream_that_is_closed_when_its_deadline_is_over_was_late(
    make: Callable[..., Service],
    registry: CollectorRegistry,
    spans: list[Span],
    given_s: float,
    left_after_s: float,
    late: bool,
) -> None:
    now = time.monotonic()
    observed = make(EchoBackend("m").stream, clock=lambda: now)
    async with aclosing(generator(observed(call(arrived=now, deadline=now + given_s)))) as events:
        await anext(events)
        now += left_after_s
    outcome = "DEADLINE_EXCEEDED" if late else "CANCELLED"
    assert outcomes(registry, outcome) == 1
    assert spans[0].attributes["error.type"] == outcome
    assert spans[0].error == ("the caller's deadline passed" if late else None)


@pytest.mark.parametrize(
    ("entrance", "name", "value"),
    [
        (Entrance("grpc", "a.B/C"), "rpc.response.status_code", "UNAVAILABLE"),
        (Entrance("http", "POST /v1/generate"), "http.response.status_code", 502),
    ],
)
async def test_a_span_says_where_the_call_came_in_and_what_it_was_answered(
    make: Callable[..., Service],
    take: Callable[..., Any],
    spans: list[Span],
    entrance: Entrance,
    name: str,
    value: str | int,
) -> None:
    backend = EchoBackend("m", script=Script(error=PeerFailed("bad")))
    with pytest.raises(PeerFailed):
        await take(make(backend.stream), call(entrance=entrance))
    await take(make(EchoBackend("m").stream), call(entrance=entrance))
    failed, well = spans
    assert failed.name == well.name == entrance.method
    assert failed.attributes[name] == value
    assert well.attributes[name] == ("OK" if entrance.protocol == "grpc" else 200)


@pytest.mark.parametrize(("streams", "status"), [(True, 200), (False, 502)])
async def test_a_stream_that_fails_amid_was_sent_with_its_status(
    make: Callable[..., Service], take: Callable[..., Any], spans: list[Span], streams: bool, status: int
) -> None:
    async def breaks_off(_call: Call) -> AsyncIterator[Event]:
        yield Started(Route())
        raise PeerFailed("bad")

    with pytest.raises(PeerFailed):
        await take(make(breaks_off), call(entrance=Entrance("http", "POST /v1/stream", streams)))
    (span,) = spans
    assert span.attributes["http.response.status_code"] == status
    assert span.error == "bad"


async def test_a_refused_call_counts_and_leaves_its_line_and_its_span(
    observe: Callable[..., Observed], registry: CollectorRegistry, spans: list[Span]
) -> None:
    with captured_lines() as logs:
        observe().refused(
            call(trace=parse(PARENT), entrance=Entrance("grpc", "a.B/C")),
            InvalidArgument("temperature", "3; must be at most 2"),
        )
    (line,) = logs
    assert (line["event"], line["outcome"], line["requested"]) == ("call.finished", "INVALID_ARGUMENT", "m")
    assert line["error"] == "temperature: 3; must be at most 2"
    assert total(registry, "polyroute_rejected_total", face="grpc", reason="INVALID_ARGUMENT") == 1
    assert registry.get_sample_value("polyroute_requests_in_flight") == 0
    assert spans[0].trace_id == "0af7651916cd43dd8448eb211c80319c"


async def test_content_is_on_spans_only_where_it_is_asked_for_and_cut(
    make: Callable[..., Service], take: Callable[..., Any], spans: list[Span]
) -> None:
    asked = Call(Request(messages=(Message("system", "be brief"), Message("user", "one two three"))), "r1")
    with captured_lines() as logs:
        await take(
            make(EchoBackend("m", script=Script(texts=["ab", "cdefghijklmnop"])).stream, content_chars=12), asked
        )
    (span,) = spans
    given = json.loads(str(span.attributes["gen_ai.input.messages"]))
    assert [part["content"] for message in given for part in message["parts"]] == ["be brief", "one "]
    made = json.loads(str(span.attributes["gen_ai.output.messages"]))
    assert made == [
        {"role": "assistant", "parts": [{"type": "text", "content": "abcdefghijkl"}], "finish_reason": "stop"}
    ]
    assert "brief" not in repr(logs)


async def test_a_call_that_is_left_tells_the_tokens_that_it_had(
    make: Callable[..., Service], take: Callable[..., Any]
) -> None:
    async def inner(_: Call) -> AsyncIterator[Event]:
        yield Started(Route())
        yield Token("a", usage=Usage(7, 1))
        yield Token("b", usage=Usage(7, 3))
        yield Token("c", usage=Usage(7, 4))

    async def at_once(_: Call) -> AsyncIterator[Event]:
        yield Started(Route())
        yield Token("abc", pieces=("a", "b", "c"))
        yield Token("d")

    with captured_lines() as logs:
        await take(make(inner), call(), most=3)
        await take(make(EchoBackend("m").stream), call(), most=3)
        await take(make(at_once), call(), most=3)
    assert (logs[0]["outcome"], logs[0]["prompt_tokens"], logs[0]["completion_tokens"]) == ("CANCELLED", 7, 3)
    assert "tokens_estimated" not in logs[0]
    assert (logs[1]["completion_tokens"], logs[1]["tokens_estimated"]) == (2, True)
    assert (logs[2]["completion_tokens"], logs[2]["tokens_estimated"]) == (4, True)
