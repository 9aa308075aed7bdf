"""Every call leaves one span, one log line and its counts, however it ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace

import structlog
from opentelemetry import trace
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import Span, SpanContext, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from polyroute.core.call import Call, Service
from polyroute.core.errors import Cancelled, Internal, PolyrouteError
from polyroute.core.event import Attempt, Event, Finished, Route, Started, Timing, Usage
from polyroute.routing.metrics import Metrics
from polyroute.routing.streams import generator

log = structlog.get_logger(__name__)

_W3C = TraceContextTextMapPropagator()
_IDS = RandomIdGenerator()


class Observed:
    """Outermost of the layers: what it sees is what the caller sees. Prompts and answers it never looks at."""

    def __init__(
        self,
        inner: Service,
        metrics: Metrics,
        *,
        tracer: Tracer | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._inner = inner
        self._metrics = metrics
        self._tracer = tracer or trace.get_tracer("polyroute")
        self._clock = clock

    async def __call__(self, call: Call) -> AsyncIterator[Event]:
        span = self._tracer.start_span(
            "polyroute.generate", context=_W3C.extract(dict(call.trace)), kind=SpanKind.SERVER
        )
        observation = _Observation(call, span, self._clock)
        self._metrics.call_begun()
        try:
            async with aclosing(generator(self._inner(observation.call))) as events:
                async for event in events:
                    event = observation.saw(event)
                    begun = self._clock()
                    yield event
                    observation.held_s += self._clock() - begun
        except PolyrouteError as error:
            observation.failed(error)
            raise
        except (asyncio.CancelledError, GeneratorExit):
            if not observation.complete:  # a caller that has the end of the answer did not leave early
                observation.outcome = Cancelled.reason
            raise
        except Exception as error:
            log.exception("call.crashed", request_id=call.request_id)
            observation.failed(Internal(call.request_id))
            raise Internal(call.request_id) from error
        finally:
            observation.close(self._metrics)


class _Observation:
    """What is known of one call so far."""

    def __init__(self, call: Call, span: Span, clock: Callable[[], float]) -> None:
        self._span = span
        self._clock = clock
        self._arrived = call.arrived
        context = span.get_span_context()
        if not context.is_valid:  # nobody records spans, and the caller has no trace: one is begun all the same
            context = SpanContext(_IDS.generate_trace_id(), _IDS.generate_span_id(), is_remote=False)
        self.trace_id = trace.format_trace_id(context.trace_id)
        headers = dict(call.trace)
        _W3C.inject(headers, trace.set_span_in_context(trace.NonRecordingSpan(context)))
        self.call = replace(call, trace=tuple(headers.items()))
        self.route = Route(requested=call.request.model)
        self.timing = Timing()
        self.usage = Usage()
        self.outcome = "ok"
        self.error = ""
        self.held_s = 0.0
        self.complete = False
        self._level = "info"

    def saw(self, event: Event) -> Event:
        """Notes an event, and completes it with what only this layer knows."""
        if isinstance(event, Started):
            self.route = replace(event.route, trace_id=self.trace_id)
            self.timing = replace(self.timing, first_token_s=self._clock() - self._arrived)
            return Started(self.route)
        if isinstance(event, Finished):
            total_s = self._clock() - self._arrived
            elsewhere_s = event.timing.queue_s + event.timing.backend_s + self.held_s
            self.timing = replace(
                event.timing,
                first_token_s=self.timing.first_token_s,
                total_s=total_s,
                router_overhead_s=max(0.0, total_s - elsewhere_s),
            )
            self.usage = event.usage
            self.complete = True
            return replace(event, timing=self.timing)
        return event

    def failed(self, error: PolyrouteError) -> None:
        """The call ends with an error."""
        self.outcome = error.reason
        self.error = error.message
        if error.attempts:
            last = error.attempts[-1]
            self.route = replace(self.route, deployment=last.deployment, variant=last.variant, attempts=error.attempts)
        self._level = "error" if error.http == 500 else "warning" if error.http > 500 else "info"

    def close(self, metrics: Metrics) -> None:
        """The call is over: counts, span and log line."""
        route, cache = self.route, self.route.cache.name.lower()
        timing = self.timing if self.complete else replace(self.timing, total_s=self._clock() - self._arrived)
        metrics.call_ended(
            route,
            self.outcome,
            timing,
            self.usage,
            operation="text_completion" if self.call.request.messages is None else "chat",
            trace_id=self.trace_id if self._span.is_recording() else "",
        )
        if self._span.is_recording():
            self._describe()
        self._span.end()
        getattr(log, self._level)(
            "call.finished",
            request_id=self.call.request_id,
            trace_id=self.trace_id,
            requested=route.requested,
            model=route.model,
            version=route.version,
            deployment=route.deployment,
            replica=route.replica,
            variant=route.variant,
            cache=cache,
            attempts=[f"{_where(attempt)}: {attempt.reason or 'ok'}" for attempt in route.attempts],
            outcome=self.outcome,
            **({"error": self.error} if self.error else {}),
            queue_s=round(self.timing.queue_s, 6),
            first_token_s=round(self.timing.first_token_s, 6),
            total_s=round(self._clock() - self._arrived, 6),
            backend_s=round(self.timing.backend_s, 6),
            router_overhead_s=round(self.timing.router_overhead_s, 6),
            prompt_tokens=self.usage.prompt_tokens,
            completion_tokens=self.usage.completion_tokens,
        )

    def _describe(self) -> None:
        self._span.set_attributes(
            {
                "polyroute.request_id": self.call.request_id,
                "gen_ai.operation.name": "generate_content",
                "gen_ai.request.model": self.route.requested,
                "gen_ai.response.model": self.route.model,
                "gen_ai.usage.input_tokens": self.usage.prompt_tokens,
                "gen_ai.usage.output_tokens": self.usage.completion_tokens,
                "polyroute.deployment": self.route.deployment,
                "polyroute.replica": self.route.replica,
                "polyroute.cache": self.route.cache.name,
                "polyroute.outcome": self.outcome,
                **{f"polyroute.label.{key}": value for key, value in self.call.request.labels.items()},
            }
        )
        if self.outcome != "ok":
            self._span.set_attribute("error.type", self.outcome)
            self._span.set_status(Status(StatusCode.ERROR, self.error or self.outcome))


def _where(attempt: Attempt) -> str:
    return f"{attempt.deployment} at {attempt.replica}" if attempt.replica else attempt.deployment
