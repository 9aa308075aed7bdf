"""Spans: made for every call, exported only where an OTLP endpoint is configured by the standard variables."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import structlog
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import Tracer

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")

log = structlog.get_logger(__name__)


class Tracing:
    """The process's tracer provider. Without an endpoint no span is recorded, yet trace IDs are made and passed on."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._provider = _provider(environ)

    @property
    def tracer(self) -> Tracer:
        """What makes the spans."""
        return self._provider.get_tracer("polyroute")

    async def close(self, budget_s: float) -> None:
        """Sends what is left, for `budget_s` seconds at most: a dead collector does not hold up the end."""
        flushing = asyncio.create_task(asyncio.to_thread(self._provider.force_flush, int(budget_s * 1000)))
        done, _ = await asyncio.wait({flushing}, timeout=budget_s)
        if not done:
            log.warning("trace.unsent", waited_s=budget_s)


def _provider(environ: Mapping[str, str]) -> TracerProvider:
    wanted = any(environ.get(name) for name in _ENDPOINTS) and environ.get("OTEL_TRACES_EXPORTER", "otlp") != "none"
    if wanted:
        try:
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        except ImportError:
            log.warning("trace.no_exporter", fix="pip install 'polyroute[otlp]'")
        else:
            name = environ.get("OTEL_SERVICE_NAME", "polyroute")
            provider = TracerProvider(resource=Resource.create({"service.name": name}))  # sampler: OTEL_TRACES_SAMPLER
            provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
            return provider
    return TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
