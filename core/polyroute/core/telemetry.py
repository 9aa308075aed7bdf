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
RETRIES = Metric(
    "polyroute_retries",
    "Attempts after a failed one of the same deployment, by outcome: `answered`, `failed`, or `no_budget` where none "
    "was made because the retry budget was used up.",
    ("deployment", "outcome"),
)
HEDGES = Metric(
    "polyroute_hedges",
    "Second attempts beside a slow one, by outcome: `won`, `lost`, `failed`, or `no_budget` where none was made.",
    ("deployment", "outcome"),
)
REPLICA_IN_FLIGHT = Metric("polyroute_replica_in_flight", "Calls in flight at a replica.", ("deployment", "replica"))
REPLICA_WEIGHT = Metric(
    "polyroute_replica_weight",
    "Share of its load that a replica gets: less than 1 in a slow start.",
    ("deployment", "replica"),
)
REPLICA_BREAKER = Metric(
    "polyroute_replica_breaker", "1 for the state that a replica's breaker is in.", ("deployment", "replica", "state")
)
EJECTIONS = Metric(
    "polyroute_replica_ejections", "How often a replica's breaker has opened.", ("deployment", "replica")
)
PERMITS = Metric("polyroute_permits_in_use", "Permits held.", ("deployment",))
PERMIT_LIMIT = Metric("polyroute_permits_limit", "Permits that there are; an adaptive limit moves.", ("deployment",))
QUEUED = Metric("polyroute_queued", "Calls waiting for a permit.", ("deployment",))
QUEUE_LIMIT = Metric("polyroute_queue_limit", "Most calls that may wait for a permit.", ("deployment",))
QUEUE_WAIT = Metric(
    "polyroute_queue_seconds", "Time that calls waited for the permit they got.", ("deployment",), _SECONDS
)
REFUSALS = Metric(
    "polyroute_refusals",
    "Calls that got no permit: `queue_full`, `pushed_out`, `queue_timeout`, `deadline_too_near` or `deadline`.",
    ("deployment", "refusal"),
)
CACHE_LOOKUPS = Metric(
    "polyroute_cache_lookups", "Cache lookups by result: `hit`, `miss` or `error`.", ("model", "result")
)
CACHE_STORES = Metric("polyroute_cache_stores", "Answers offered to the cache, by result.", ("model", "result"))
MODEL_STATE = Metric("polyroute_model_state", "1 for the state a model is in.", ("model", "state"))
REPLICAS = Metric("polyroute_replicas", "Replicas of a local model, by state.", ("model", "state"))
MODEL_LOADS = Metric(
    "polyroute_model_loads",
    "Loads of a local model's replicas, by outcome (`ok` or an error reason).",
    ("model", "outcome"),
)
LOAD_SECONDS = Metric(
    "polyroute_model_load_seconds",
    "Time from the decision to load a replica until it was warm.",
    ("model",),
    (0.5, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
)
EVICTIONS = Metric("polyroute_model_evictions", "Idle replicas that left for another model's sake.", ("model",))
MEMORY_HELD = Metric(
    "polyroute_memory_held_bytes", "Memory that local models hold or are about to take, by device.", ("device",)
)
MEMORY_BUDGET = Metric("polyroute_memory_budget_bytes", "Memory that local models may take together.", ("device",))
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
