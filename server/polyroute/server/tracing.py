"""Traces: which calls are sampled, and how their spans get to a collector, by OpenTelemetry's own variables.

https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress

import structlog
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, ParentBasedTraceIdRatio, Sampler, TraceIdRatioBased
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from polyroute.core.trace import SAMPLED, Begin, Span, Trace, Value, begun, new_span_id, untraced
from polyroute.server.span_export import exporter_for

CONTENT_CHARS = 16 * 1024
"""Most characters of a prompt, and of an answer, that a span has where content is asked for."""

_CONTENT = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
_ON_SPANS = ("true", "span_only", "span_and_event")
_KINDS = {"server": SpanKind.SERVER, "client": SpanKind.CLIENT, "internal": SpanKind.INTERNAL}
_FOLLOWING = (ParentBased, ParentBasedTraceIdRatio)
_SCOPE = InstrumentationScope("polyroute", schema_url="https://opentelemetry.io/schemas/1.40.0")

log = structlog.get_logger(__name__)


class Tracing:
    """Decides which calls are sampled, and sends their spans. Without an exporter none is, and traces are passed on.

    Spans wait in a bounded queue for a thread that sends them in batches; a collector that does not keep up, or is
    not there, loses spans and holds up nothing.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.content_chars = CONTENT_CHARS if environ.get(_CONTENT, "").lower() in _ON_SPANS else 0
        self._processor: SpanProcessor | None = None
        self.begin: Begin = untraced
        """Begins the trace of a call; see `polyroute.core.trace.Begin`."""
        try:
            self._set_up(environ)
        except Exception as error:  # noqa: BLE001 - OpenTelemetry's own, of many kinds; calls are served without spans
            log.warning("trace.not_set_up", error=f"{type(error).__name__}: {error}", effect="no span is kept")

    def _set_up(self, environ: Mapping[str, str]) -> None:
        exporter = exporter_for(environ)
        if exporter is None:
            return
        provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        processor = BatchSpanProcessor(exporter)
        self.begin = Sampling(provider.sampler, Outlet(processor, provider.resource)).begin
        self._processor = processor

    async def close(self, budget_s: float) -> None:
        """Sends what is left, for `budget_s` seconds at most: a dead collector does not hold up the end."""
        if self._processor is None:
            return
        sent = asyncio.Event()
        loop = asyncio.get_running_loop()
        processor = self._processor

        def end() -> None:
            processor.shutdown()
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(sent.set)

        # A daemon: neither the loop nor the interpreter waits for it, as they would for a thread of an executor.
        threading.Thread(target=end, name="last spans", daemon=True).start()
        try:
            async with asyncio.timeout(budget_s):
                await sent.wait()
        except TimeoutError:
            log.warning("trace.unsent", waited_s=budget_s)


class Sampling:
    """Asks an OpenTelemetry sampler about each call that comes in; its spans, where it is sampled, go to `outlet`."""

    def __init__(self, sampler: Sampler, outlet: Outlet) -> None:
        self._sampler = sampler
        self._outlet = outlet
        self._bound = _bound_of(sampler)

    def begin(self, parent: Trace, name: str, attributes: Callable[[], Mapping[str, Value]]) -> Trace:
        """As `polyroute.core.trace.Begin`. A call that is not sampled costs an ID or two, and no span."""
        trace_id = parent.trace_id
        if not trace_id:
            fresh = begun()
            trace_id = fresh.trace_id
            if self._bound is not None and trace_id[-16:] >= self._bound:
                return fresh
        told = attributes()
        result = self._sampler.should_sample(
            _context(parent), int(trace_id, 16), name, SpanKind.SERVER, told, trace_state=_state(parent.state)
        )
        if result.decision is not Decision.RECORD_AND_SAMPLE:
            return Trace(trace_id, parent.span_id or new_span_id(), parent.flags & ~SAMPLED, parent.state)
        state = parent.state if result.trace_state is None else result.trace_state.to_header()
        trace = Trace(trace_id, parent.span_id, SAMPLED, state)
        span = Span(
            name,
            "server",
            trace,
            self._outlet.keep,
            {**told, **result.attributes},
            parent_is_remote=True,
        )
        return trace.under(span)


def _bound_of(sampler: Sampler) -> str | None:
    """What the last 16 digits of a new trace's ID are below where a sampler by ratio keeps it; None for other samplers.

    It is asked only about those, then: each time costs as much as the rest of what is told of a call. One that keeps
    all is asked about all.
    """
    root = getattr(sampler, "_root", None) if type(sampler) in _FOLLOWING else sampler
    return f"{root.bound:016x}" if type(root) is TraceIdRatioBased and root.rate < 1 else None


class Outlet:
    """Gives spans that have ended to a processor of OpenTelemetry's, in the form that its exporters take."""

    def __init__(self, processor: SpanProcessor, resource: Resource) -> None:
        self._processor = processor
        self._resource = resource
        limits = SpanLimits()  # of OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT and the like
        self._most = limits.max_span_attributes
        self._longest = limits.max_span_attribute_length

    def keep(self, span: Span) -> None:
        """Queues a span to be sent; never waits."""
        self._processor.on_end(self._readable(span))

    def _readable(self, span: Span) -> ReadableSpan:
        parent = None
        if span.parent_id:
            parent = _span_context(span.trace_id, span.parent_id, SAMPLED, span.state, remote=span.parent_is_remote)
        return ReadableSpan(
            name=span.name,
            context=_span_context(span.trace_id, span.span_id, SAMPLED, span.state, remote=False),
            parent=parent,
            resource=self._resource,
            attributes=BoundedAttributes(self._most, span.attributes, max_value_len=self._longest),
            links=_links(span),
            events=[Event(event.name, event.attributes, event.at_ns) for event in span.events],
            kind=_KINDS[span.kind],
            status=Status(StatusCode.UNSET) if span.error is None else Status(StatusCode.ERROR, span.error),
            start_time=span.begun_ns,
            end_time=span.ended_ns,
            instrumentation_scope=_SCOPE,
        )


def _resource() -> Resource:
    """What the environment says that this is; `polyroute` where it does not name it."""
    told = Resource.create()
    named = not str(told.attributes["service.name"]).startswith("unknown_service")
    return told if named else told.merge(Resource({"service.name": "polyroute"}))


def _context(parent: Trace) -> Context | None:
    """What a sampler that follows the caller's decision looks into."""
    if not parent.trace_id:
        return Context()
    context = _span_context(parent.trace_id, parent.span_id, parent.flags, parent.state, remote=True)
    return set_span_in_context(NonRecordingSpan(context), Context())


def _links(span: Span) -> list[Link]:
    to = span.link
    return [] if to is None else [Link(_span_context(to.trace_id, to.span_id, to.flags, to.state, remote=False))]


def _span_context(trace_id: str, span_id: str, flags: int, state: str, *, remote: bool) -> SpanContext:
    return SpanContext(int(trace_id, 16), int(span_id, 16), remote, TraceFlags(flags), _state(state))


def _state(state: str) -> TraceState | None:
    return TraceState.from_header([state]) if state else None
