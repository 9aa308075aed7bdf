"""Which calls are sampled, what their spans are to OpenTelemetry, and that its variables rule."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Decision, ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.trace import SpanKind, StatusCode
from structlog.testing import capture_logs

from polyroute.core.trace import NO_TRACE, parse, untraced
from polyroute.server import tracing
from polyroute.server.span_export import exporter_for
from polyroute.server.tracing import Outlet, Sampling, Tracing

PARENT = parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "a=1")
UNSAMPLED = parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")


def sampling(sampler: Sampler) -> tuple[Sampling, InMemorySpanExporter]:
    spans = InMemorySpanExporter()
    return Sampling(sampler, Outlet(SimpleSpanProcessor(spans), Resource.create({"service.name": "x"}))), spans


def test_a_sampled_call_becomes_a_span_of_opentelemetrys() -> None:
    begun, spans = sampling(ALWAYS_ON)
    trace = begun.begin(PARENT, "POST /v1/generate", lambda: {"http.request.method": "POST"})
    assert trace.span is not None
    attempt = trace.span.child("chat m", "client")
    attempt.failed("PEER_FAILED", "it is gone")
    attempt.event("again", {"times": 2})
    attempt.end()
    trace.span.end()
    inner, outer = spans.get_finished_spans()
    assert (outer.name, outer.kind, outer.status.status_code) == (
        "POST /v1/generate",
        SpanKind.SERVER,
        StatusCode.UNSET,
    )
    assert outer.parent is not None
    assert outer.parent.is_remote
    assert f"{outer.parent.span_id:016x}" == PARENT.span_id
    assert outer.context is not None
    assert outer.context.trace_state.to_header() == "a=1"
    assert f"{outer.context.trace_id:032x}" == trace.trace_id == PARENT.trace_id
    assert outer.resource.attributes["service.name"] == "x"
    assert inner.parent is not None
    assert (inner.parent.span_id, inner.parent.is_remote) == (outer.context.span_id, False)
    assert (inner.kind, inner.status.status_code, inner.status.description) == (
        SpanKind.CLIENT,
        StatusCode.ERROR,
        "it is gone",
    )
    assert dict(inner.attributes or {}) == {"error.type": "PEER_FAILED"}
    assert [(event.name, dict(event.attributes or {})) for event in inner.events] == [("again", {"times": 2})]


def test_a_call_that_is_not_sampled_has_a_trace_and_no_span() -> None:
    begun, spans = sampling(ALWAYS_OFF)
    trace = begun.begin(NO_TRACE, "call", dict)
    assert trace.span is None
    assert (len(trace.trace_id), len(trace.span_id), trace.sampled) == (32, 16, False)
    assert begun.begin(PARENT, "call", dict).headers()["traceparent"].endswith(f"{PARENT.span_id}-00")
    assert not spans.get_finished_spans()


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_a_ratio_keeps_the_very_traces_that_opentelemetry_would(rate: float, wrapped: bool) -> None:
    ratio = TraceIdRatioBased(rate)
    begun, _ = sampling(ParentBased(ratio) if wrapped else ratio)
    traces = [begun.begin(NO_TRACE, "call", dict) for _ in range(300)]
    for trace in traces:
        decision = ratio.should_sample(None, int(trace.trace_id, 16), "call").decision
        assert trace.sampled == (trace.span is not None) == (decision is Decision.RECORD_AND_SAMPLE)
    assert len({trace.trace_id for trace in traces}) == len({trace.span_id for trace in traces}) == 300
    assert {(len(trace.trace_id), len(trace.span_id)) for trace in traces} == {(32, 16)}


@pytest.mark.parametrize("name", ["traceidratio", "parentbased_traceidratio"])
def test_a_sampler_by_ratio_is_asked_only_about_what_it_keeps(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", name)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.1")
    begun, _ = sampling(TracerProvider().sampler)
    asked: list[int] = []
    kept = sum(begun.begin(NO_TRACE, "call", lambda: asked.append(1) or {}).span is not None for _ in range(500))
    assert len(asked) == kept < 500


def test_the_callers_decision_is_followed_where_the_sampler_follows_it() -> None:
    begun, _ = sampling(ParentBased(ALWAYS_OFF))
    assert begun.begin(PARENT, "call", dict).span is not None
    assert begun.begin(NO_TRACE, "call", dict).span is None
    begun, _ = sampling(ParentBased(ALWAYS_ON))
    assert begun.begin(UNSAMPLED, "call", dict).span is None
    assert begun.begin(NO_TRACE, "call", dict).span is not None


def test_a_part_is_sampled() -> None:
    begun, _ = sampling(ParentBased(TraceIdRatioBased(0.25)))
    sampled = sum(begun.begin(NO_TRACE, "call", dict).span is not None for _ in range(2000))
    assert 350 < sampled < 650  # beyond seven standard deviations


def test_long_values_are_cut_as_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "3")
    begun, spans = sampling(ALWAYS_ON)
    trace = begun.begin(NO_TRACE, "call", lambda: {"x": "abcdef"})
    assert trace.span is not None
    trace.span.end()
    assert dict(spans.get_finished_spans()[0].attributes or {}) == {"x": "abc"}


OTLP = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {**OTLP, "OTEL_SDK_DISABLED": "true"},
        {**OTLP, "OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
    ],
)
def test_nothing_is_sent_unless_it_is_asked_for(environ: dict[str, str]) -> None:
    with capture_logs() as logs:
        assert exporter_for(environ) is None
        assert Tracing(environ).begin is untraced
    assert not logs


@pytest.mark.parametrize(
    ("environ", "module"),
    [
        (OTLP, "grpc"),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, "grpc"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:9/v1/traces"}, "grpc"),
        ({**OTLP, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, "http"),
        (
            {**OTLP, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"},
            "http",
        ),
    ],
)
def test_the_exporter_is_the_one_that_the_variables_name(environ: dict[str, str], module: str) -> None:
    exporter = exporter_for(environ)
    assert exporter is not None
    assert type(exporter).__module__ == f"opentelemetry.exporter.otlp.proto.{module}.trace_exporter"
    exporter.shutdown()


def test_spans_can_be_printed() -> None:
    assert isinstance(exporter_for({"OTEL_TRACES_EXPORTER": "console"}), ConsoleSpanExporter)


@pytest.mark.parametrize(
    ("environ", "event"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "trace.unknown_exporter"),
        ({**OTLP, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, "trace.unknown_protocol"),
    ],
)
def test_what_is_not_known_is_told_and_sends_nothing(environ: dict[str, str], event: str) -> None:
    with capture_logs() as logs:
        assert exporter_for(environ) is None
    assert [line["event"] for line in logs] == [event]


@pytest.mark.parametrize(
    ("value", "chars"), [("", 0), ("false", 0), ("NO_CONTENT", 0), ("true", 16384), ("SPAN_ONLY", 16384)]
)
def test_content_is_kept_only_where_it_is_asked_for(value: str, chars: int) -> None:
    assert Tracing({"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": value}).content_chars == chars


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({}, "polyroute"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=mine"}, "mine"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=mine", "OTEL_SERVICE_NAME": "ours"}, "ours"),
    ],
)
async def test_the_service_is_named_by_the_environment(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], name: str
) -> None:
    spans = InMemorySpanExporter()
    monkeypatch.setattr(tracing, "exporter_for", lambda _environ: spans)
    for variable, value in environ.items():
        monkeypatch.setenv(variable, value)
    made = Tracing(environ)
    trace = made.begin(PARENT, "call", dict)
    assert trace.span is not None
    trace.span.end()
    await made.close(60)
    (span,) = spans.get_finished_spans()
    assert span.resource.attributes["service.name"] == name


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zip"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "-1"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "few"),
    ],
)
def test_a_variable_that_makes_no_sense_stops_no_server(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    environ = {**OTLP, variable: value}
    for name, text in environ.items():
        monkeypatch.setenv(name, text)
    with capture_logs() as logs:
        assert Tracing(environ).begin is untraced
    assert [(line["event"], line["log_level"]) for line in logs] == [("trace.not_set_up", "warning")]


class Stuck(SpanExporter):
    """Never gets a span to anyone, and says so late."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        time.sleep(3600)
        return SpanExportResult.FAILURE


async def test_a_collector_that_hangs_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "exporter_for", lambda _environ: Stuck())
    made = Tracing({})
    trace = made.begin(PARENT, "call", dict)
    assert trace.span is not None
    trace.span.end()
    with capture_logs() as logs:
        await made.close(0.05)
    assert [line["event"] for line in logs] == ["trace.unsent"]


async def test_what_is_left_is_sent_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    spans = InMemorySpanExporter()
    monkeypatch.setattr(tracing, "exporter_for", lambda _environ: spans)
    made = Tracing({})
    trace = made.begin(PARENT, "call", dict)
    assert trace.span is not None
    trace.span.end()
    await made.close(60)
    assert len(spans.get_finished_spans()) == 1
