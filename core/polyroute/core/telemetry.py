"""The one place that names metrics, span attributes and log events."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric's name, what it tells, its labels and, for a histogram, its bucket bounds in the metric's unit."""

    name: str
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


OTHER = "_other"
"""Label value that stands for every name a client made up."""

_SECONDS = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)

REQUESTS = Metric(
    "polyroute_requests",
    "Calls that ended, by the model that answered, what the cache did and the outcome (`ok` or an error reason).",
    ("model", "cache", "outcome"),
)
IN_FLIGHT = Metric("polyroute_requests_in_flight", "Calls being answered.")
DURATION = Metric("polyroute_request_duration_seconds", "Time from arrival to the end.", ("model",), _SECONDS)
FIRST_TOKEN = Metric(
    "polyroute_time_to_first_token_seconds", "Time from arrival to the answer's beginning.", ("model",), _SECONDS
)
OVERHEAD = Metric(
    "polyroute_router_overhead_seconds",
    "Time that the router itself added to a call.",
    ("model",),
    (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1),
)
TOKENS = Metric("polyroute_tokens", "Tokens by direction: `prompt` or `completion`.", ("model", "direction"))
ATTEMPT_FAILURES = Metric(
    "polyroute_attempt_failures", "Attempts that failed, by deployment and error reason.", ("deployment", "reason")
)
PERMITS = Metric("polyroute_permits_in_use", "Permits held.", ("deployment",))
QUEUED = Metric("polyroute_queued", "Calls waiting for a permit.", ("deployment",))
CACHE_LOOKUPS = Metric(
    "polyroute_cache_lookups", "Cache lookups by result: `hit`, `miss` or `error`.", ("model", "result")
)
CACHE_STORES = Metric("polyroute_cache_stores", "Answers offered to the cache, by result.", ("model", "result"))
MODEL_STATE = Metric("polyroute_model_state", "1 for the state a model is in.", ("model", "state"))
WORKER_RESTARTS = Metric("polyroute_worker_restarts", "Worker processes that died and were replaced.", ("model",))
CONFIG_RELOADS = Metric(
    "polyroute_config_reloads",
    "Reloads of the configuration by result: `changed`, `unchanged`, `rejected` (the file has mistakes) or `failed`.",
    ("result",),
)
CONFIG = Metric("polyroute_config_info", "1 for the digest of the configuration in force.", ("hash",))
CONFIG_LOADED = Metric(
    "polyroute_config_last_success_timestamp_seconds", "Unix time of the last configuration that could be used."
)
