"""The one place that names what spans are described by.

Names without `polyroute.` are those of the OpenTelemetry semantic conventions 1.40 (GenAI, RPC, HTTP, general); a test
compares them with the package that has them.
"""

from __future__ import annotations

from typing import Final

ERROR_TYPE: Final = "error.type"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"

RPC_SYSTEM: Final = "rpc.system.name"
RPC_METHOD: Final = "rpc.method"
RPC_STATUS: Final = "rpc.response.status_code"
HTTP_METHOD: Final = "http.request.method"
HTTP_ROUTE: Final = "http.route"
HTTP_STATUS: Final = "http.response.status_code"

OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
MAX_TOKENS: Final = "gen_ai.request.max_tokens"
TEMPERATURE: Final = "gen_ai.request.temperature"
TOP_P: Final = "gen_ai.request.top_p"
TOP_K: Final = "gen_ai.request.top_k"
SEED: Final = "gen_ai.request.seed"
FREQUENCY_PENALTY: Final = "gen_ai.request.frequency_penalty"
PRESENCE_PENALTY: Final = "gen_ai.request.presence_penalty"
RESPONSE_MODEL: Final = "gen_ai.response.model"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
CACHED_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
INPUT_MESSAGES: Final = "gen_ai.input.messages"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"

REQUEST_ID: Final = "polyroute.request_id"
PAIR_ID: Final = "polyroute.pair_id"
OUTCOME: Final = "polyroute.outcome"
DEPLOYMENT: Final = "polyroute.deployment"
VERSION: Final = "polyroute.version"
REPLICA: Final = "polyroute.replica"
VARIANT: Final = "polyroute.variant"
CACHE: Final = "polyroute.cache"
CACHE_TIER: Final = "polyroute.cache.tier"
CACHE_AGE: Final = "polyroute.cache.age"
WAIT: Final = "polyroute.queue.wait"
ENGINE_WAIT: Final = "polyroute.engine.wait"
OVERHEAD: Final = "polyroute.router_overhead"
WHY: Final = "polyroute.attempt.reason"
LABEL: Final = "polyroute.label."
"""Before the name of a label that the caller gave; times are in seconds."""

OUR_PROVIDER: Final = "polyroute"
CHAT: Final = "chat"
COMPLETION: Final = "text_completion"
