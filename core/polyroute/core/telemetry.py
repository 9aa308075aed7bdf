"""The one place that names metrics, span attributes and log events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric's name, what it tells, its labels and, for a histogram, its bucket bounds in the metric's unit.

    One without buckets is a counter, or a gauge where `gauge` says so.
    """

    name: str
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    gauge: bool = False

    @property
    def kind(self) -> Literal["counter", "gauge", "histogram"]:
        """What it is to Prometheus."""
        return "histogram" if self.buckets else "gauge" if self.gauge else "counter"

    @property
    def exposed(self) -> str:
        """The name that it has on `/metrics`."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


def metrics() -> tuple[Metric, ...]:
    """Every metric that this module names, in its order."""
    return tuple(value for value in globals().values() if isinstance(value, Metric))


OTHER = "_other"
"""Label value that stands for every name a client made up."""

LATER = "later"
"""Key of the fields of a log line that are worked out by the thread that writes it: what gives them when called."""

PROVIDER = "polyroute"
"""`gen_ai.provider.name` of whatever we count."""

_SECONDS = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)

# OpenTelemetry's names, attributes and bucket bounds (Semantic conventions for generative AI metrics), as
# Prometheus spells them. `cache` is ours.
_GEN_AI = ("gen_ai_request_model", "gen_ai_response_model", "gen_ai_operation_name", "gen_ai_provider_name")
DURATION = Metric(
    "gen_ai_server_request_duration_seconds",
    "Time from a call's arrival to its end, by the name that it asked for, the model that answered, what the cache "
    "did and, for a call that failed, the error reason.",
    (*_GEN_AI, "cache", "error_type"),
    (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92),
)
FIRST_TOKEN = Metric(
    "gen_ai_server_time_to_first_token_seconds",
    "Time from arrival to the beginning of an answer that a model gave; what the cache answers is left out.",
    _GEN_AI,
    (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
)
PER_TOKEN = Metric(
    "gen_ai_server_time_per_output_token_seconds",
    "Mean time between the tokens of an answer that a model gave, after the first.",
    _GEN_AI,
    (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5),
)
TOKENS = Metric(
    "gen_ai_client_token_usage",
    "Tokens of a call, by type: `input` or `output`; its `_sum` counts them.",
    (*_GEN_AI, "cache", "gen_ai_token_type"),
    (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864),
)

REQUESTS = Metric(
    "polyroute_requests",
    "Calls that ended, by the model that answered, the route asked for, its variant, what the cache did and the "
    "outcome (`ok` or an error reason).",
    ("model", "route", "variant", "cache", "outcome"),
)
IN_FLIGHT = Metric("polyroute_requests_in_flight", "Calls being answered.", gauge=True)
REJECTED = Metric(
    "polyroute_rejected",
    "Calls refused where they came in, before any model was asked, by face (`grpc` or `rest`) and error reason.",
    ("face", "reason"),
)
OVERHEAD = Metric(
    "polyroute_router_overhead_seconds",
    "Time that the router itself added to a call.",
    ("model",),
    (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1),
)
PREFIX_TOKENS = Metric(
    "polyroute_prompt_tokens_reused", "Prompt tokens that a model had at hand and did not compute again.", ("model",)
)
ATTEMPTS = Metric(
    "polyroute_attempts",
    "Attempts to answer a call, by deployment and outcome: `ok` once it began to answer, or an error reason.",
    ("deployment", "outcome"),
)
FALLBACKS = Metric(
    "polyroute_fallbacks",
    "Calls that went on to another deployment, by the one that failed them and its error reason.",
    ("deployment", "cause"),
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
REPLICA_IN_FLIGHT = Metric(
    "polyroute_replica_in_flight", "Calls in flight at a replica.", ("deployment", "replica"), gauge=True
)
REPLICA_WEIGHT = Metric(
    "polyroute_replica_weight",
    "Share of its load that a replica gets: less than 1 in a slow start.",
    ("deployment", "replica"),
    gauge=True,
)
REPLICA_BREAKER = Metric(
    "polyroute_replica_breaker",
    "1 for the state that a replica's breaker is in.",
    ("deployment", "replica", "state"),
    gauge=True,
)
EJECTIONS = Metric(
    "polyroute_replica_ejections", "How often a replica's breaker has opened.", ("deployment", "replica")
)
REPLICA_ATTEMPTS = Metric(
    "polyroute_replica_attempts",
    "Attempts at a replica that are over, by outcome: `ok` for a whole answer, an error reason, or `CANCELLED` where "
    "the caller left or another replica was faster. Shadows' copies are left out.",
    ("deployment", "replica", "outcome"),
)
REPLICA_FIRST_TOKEN = Metric(
    "polyroute_replica_first_token_seconds",
    "Time from asking a replica to the beginning of its answer.",
    ("deployment", "replica"),
    FIRST_TOKEN.buckets,
)
REPLICA_SECONDS = Metric(
    "polyroute_replica_attempt_seconds",
    "Time that the attempts at a replica took that are over; by their number, the mean.",
    ("deployment", "replica"),
)
PERMITS = Metric("polyroute_permits_in_use", "Permits held.", ("deployment",), gauge=True)
PERMIT_LIMIT = Metric(
    "polyroute_permits_limit", "Permits that there are; an adaptive limit moves.", ("deployment",), gauge=True
)
QUEUED = Metric("polyroute_queued", "Calls waiting for a permit.", ("deployment",), gauge=True)
QUEUE_LIMIT = Metric("polyroute_queue_limit", "Most calls that may wait for a permit.", ("deployment",), gauge=True)
QUEUE_WAIT = Metric(
    "polyroute_queue_seconds", "Time that calls waited for the permit they got.", ("deployment",), _SECONDS
)
REFUSALS = Metric(
    "polyroute_refusals",
    "Calls that got no permit: `queue_full`, `pushed_out`, `queue_timeout`, `deadline_too_near` or `deadline`.",
    ("deployment", "refusal"),
)
CACHE_LOOKUPS = Metric(
    "polyroute_cache_lookups", "Cache lookups by result: `hit`, `miss`, `coalesced` or `error`.", ("model", "result")
)
SEMANTIC_LOOKUPS = Metric(
    "polyroute_cache_semantic_lookups",
    "Requests that the semantic tier looked for a near one of, by result: `near`, `far`, `refused` (near, but in other "
    "numbers, negations or order of words) or `skipped` (there was no vector in time).",
    ("model", "result"),
)
SEMANTIC_COMPARED = Metric(
    "polyroute_cache_semantic_compared",
    "Fresh answers held against the one that the semantic tier would have served, by result: `equal` or `other`.",
    ("model", "result"),
)
CACHE_STORES = Metric("polyroute_cache_stores", "Answers offered to the cache, by result.", ("model", "result"))
CACHE_TIER_LOOKUPS = Metric(
    "polyroute_cache_tier_lookups",
    "Lookups in a tier of the cache, by result: `hit`, or `miss`, which is also what a tier that fails gives.",
    ("tier", "result"),
)
CACHE_TIER_STORES = Metric("polyroute_cache_tier_stores", "Answers that a tier of the cache took up.", ("tier",))
CACHE_TIER_FAILURES = Metric(
    "polyroute_cache_tier_failures",
    "Operations of a tier of the cache that gave nothing: `failed`, or `skipped`, since it had failed before.",
    ("tier", "kind"),
)
CACHE_TIER_USED = Metric(
    "polyroute_cache_tier_used",
    "1 where a tier of the cache is used for `read` and for `write`, 0 while it is left out.",
    ("tier", "operation"),
    gauge=True,
)
CACHE_TIER_BYTES = Metric(
    "polyroute_cache_tier_bytes",
    "Size of the answers in a tier of the cache, of the one in memory alone.",
    ("tier",),
    gauge=True,
)
CACHE_TIER_LIMIT = Metric(
    "polyroute_cache_tier_limit_bytes", "What they may take; then the least recently used leave.", ("tier",), gauge=True
)
CACHE_RUNS = Metric(
    "polyroute_cache_runs", "Answers in the making that equal calls share, or would share.", ("model",), gauge=True
)
CACHE_REFRESHES = Metric(
    "polyroute_cache_refreshes",
    "Renewals of stale answers by outcome: `ok`, `failed`, or `skipped` where too many were going on.",
    ("model", "outcome"),
)
MODEL_STATE = Metric("polyroute_model_state", "1 for the state a model is in.", ("model", "state"), gauge=True)
REPLICAS = Metric("polyroute_replicas", "Replicas of a local model, by state.", ("model", "state"), gauge=True)
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
    "polyroute_memory_held_bytes",
    "Memory that local models hold or are about to take, by device.",
    ("device",),
    gauge=True,
)
MEMORY_BUDGET = Metric(
    "polyroute_memory_budget_bytes", "Memory that local models may take together.", ("device",), gauge=True
)
WORKER_RESTARTS = Metric("polyroute_worker_restarts", "Worker processes that died and were replaced.", ("model",))
ENGINE_SEQUENCES = Metric(
    "polyroute_engine_sequences",
    "Answers that a worker works on: `running`, `waiting` for a place or memory, or `paused` by a slow reader.",
    ("model", "replica", "state"),
    gauge=True,
)
ENGINE_KV_USED = Metric(
    "polyroute_engine_kv_used_bytes",
    "Memory that a worker's keys and values take, prefixes included.",
    ("model", "replica"),
    gauge=True,
)
ENGINE_KV_LIMIT = Metric(
    "polyroute_engine_kv_limit_bytes",
    "Memory that a worker's keys and values may take.",
    ("model", "replica"),
    gauge=True,
)
ENGINE_STEP = Metric(
    "polyroute_engine_step_seconds",
    "Time of one step of a worker's engine, which gives each running answer a token.",
    ("model", "replica"),
    (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)
ENGINE_BATCH = Metric(
    "polyroute_engine_batch_sequences",
    "Answers that took part in a step.",
    ("model", "replica"),
    (1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
)
ENGINE_PROMPT_TOKENS = Metric(
    "polyroute_engine_prompt_tokens",
    "Prompt tokens that a worker read, by source: `computed`, or found as the `prefix` of an earlier prompt.",
    ("model", "replica", "source"),
)
ENGINE_OUTPUT_TOKENS = Metric("polyroute_engine_output_tokens", "Tokens that a worker generated.", ("model", "replica"))
ENGINE_PREEMPTIONS = Metric(
    "polyroute_engine_preemptions",
    "Answers that had to give back their memory for an older one's sake, to be computed anew.",
    ("model", "replica"),
)
CONFIG_RELOADS = Metric(
    "polyroute_config_reloads",
    "Reloads of the configuration by result: `changed`, `unchanged`, `rejected` (the file has mistakes) or `failed`.",
    ("result",),
)
CONFIG = Metric("polyroute_config_info", "1 for the digest of the configuration in force.", ("hash",), gauge=True)
CONFIG_LOADED = Metric(
    "polyroute_config_last_success_timestamp_seconds",
    "Unix time of the last configuration that could be used.",
    gauge=True,
)
BUILD = Metric("polyroute_build_info", "1 for the version of Polyroute that runs.", ("version",), gauge=True)
ROUTER_PROCESSES = Metric("polyroute_router_processes", "Router processes that answer calls now.", gauge=True)
ROUTER_RESTARTS = Metric("polyroute_router_process_restarts", "Router processes that died and were replaced.")
LOOP_LAG = Metric(
    "polyroute_event_loop_lag_seconds",
    "How late the event loop is with what is due; every call waits that long at each of its turns.",
    (),
    (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1),
)
VARIANT_SHARE = Metric(
    "polyroute_variant_share",
    "Part of a route's traffic that each variant gets now, 0 to 1; rollouts and adaptive routes move it.",
    ("route", "variant"),
    gauge=True,
)
EXPERIMENT_RECORDS = Metric(
    "polyroute_experiment_records",
    "Records of calls in experiments, by result: `written`, or `dropped` where too many waited to be written.",
    ("result",),
)
SHADOWED = Metric(
    "polyroute_shadow_copies",
    "Copies of calls for a shadow, by result: `compared`; `copy_failed`, `caller_failed` or `both_failed`; or why none "
    "was made or ended, such as `queue_full`, `breaker_open`, `busy` or `caller_left`.",
    ("route", "deployment", "result"),
)
SHADOW_DISTANCE = Metric(
    "polyroute_shadow_edit_distance",
    "How far a shadow's answers are from those of callers: 0 for equal tokens, 1 where none is left in its place.",
    ("route", "deployment"),
    (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.8, 1.0),
)
ROLLOUT_STATE = Metric(
    "polyroute_rollout_state", "1 for the state a route's rollout is in.", ("route", "state"), gauge=True
)
ROLLOUT_WEIGHT = Metric(
    "polyroute_rollout_weight",
    "A rollout's new version's share of the traffic of both versions, 0 to 1.",
    ("route",),
    gauge=True,
)
ROLLOUT_MOVES = Metric(
    "polyroute_rollout_moves",
    "Moves of a rollout that this router has seen, to another step or state, by the state that it was in afterwards.",
    ("route", "state"),
)
RECORDS_WAITING = Metric("polyroute_experiment_records_waiting", "Records that wait to be written.", gauge=True)
