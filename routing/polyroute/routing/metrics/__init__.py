"""What the router counts, on a Prometheus registry; names and meanings stand in `core.telemetry`."""

from polyroute.routing.metrics.record import Metrics

__all__ = ["Metrics"]
