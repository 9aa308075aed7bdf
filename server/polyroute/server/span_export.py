"""The exporter of spans that OpenTelemetry's variables ask for."""

from __future__ import annotations

from collections.abc import Mapping

import structlog
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SpanExporter

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")

log = structlog.get_logger(__name__)


def exporter_for(environ: Mapping[str, str]) -> SpanExporter | None:
    """What sends spans, or None where none are wanted: no exporter is named and no endpoint given.

    Which one it is stands in `environ`; the exporter itself reads its endpoint, headers, certificates and timeouts
    from the environment of the process.
    """
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    named = environ.get("OTEL_TRACES_EXPORTER", "").strip()
    if not named:
        named = "otlp" if any(environ.get(name) for name in _ENDPOINTS) else "none"
    if named == "none":
        return None
    if named == "console":
        return ConsoleSpanExporter()
    if named != "otlp":
        log.warning("trace.unknown_exporter", OTEL_TRACES_EXPORTER=named, known="otlp, console, none")
        return None
    return _otlp(next((environ[name].strip() for name in _PROTOCOLS if environ.get(name)), "grpc"))


def _otlp(protocol: str) -> SpanExporter | None:
    try:
        if protocol == "grpc":
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

            return GrpcExporter()
        if protocol == "http/protobuf":
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

            return HttpExporter()
    except ImportError:
        log.warning("trace.no_exporter", protocol=protocol, fix="pip install 'polyroute[otlp]'")
        return None
    log.warning("trace.unknown_protocol", OTEL_EXPORTER_OTLP_PROTOCOL=protocol, known="grpc, http/protobuf")
    return None
