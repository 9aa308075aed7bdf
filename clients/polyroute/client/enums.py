"""The words of the protocol's enumerations, in lower case; a word that this client does not know is `unspecified`."""

from __future__ import annotations

from enum import StrEnum


class CacheMode(StrEnum):
    """What a request asks of the cache."""

    UNSPECIFIED = "unspecified"
    BYPASS = "bypass"
    REFRESH = "refresh"
    ONLY_IF_CACHED = "only_if_cached"


class CacheResult(StrEnum):
    """What the cache did for an answer."""

    UNSPECIFIED = "unspecified"
    MISS = "miss"
    HIT = "hit"
    COALESCED = "coalesced"
    BYPASS = "bypass"


class FinishReason(StrEnum):
    """Why an answer ended."""

    UNSPECIFIED = "unspecified"
    STOP = "stop"
    STOP_SEQUENCE = "stop_sequence"
    LENGTH = "length"
    CONTENT_FILTER = "content_filter"
    TOOL_CALLS = "tool_calls"


class ModelType(StrEnum):
    """What stands behind a name that may be sent as `model`."""

    UNSPECIFIED = "unspecified"
    LOCAL = "local"
    REMOTE = "remote"
    ROUTE = "route"


class ModelState(StrEnum):
    """How ready a model or a replica is."""

    UNSPECIFIED = "unspecified"
    COLD = "cold"
    LOADING = "loading"
    WARM = "warm"
    DRAINING = "draining"
    FAILED = "failed"


class BreakerState(StrEnum):
    """Whether a replica is asked at all; unspecified where that is not known."""

    UNSPECIFIED = "unspecified"
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class SemanticMode(StrEnum):
    """What the cache's semantic tier does with a request that is worded in another way."""

    UNSPECIFIED = "unspecified"
    OFF = "off"
    MEASURE = "measure"
    SERVE = "serve"


class RolloutState(StrEnum):
    """State of a rollout."""

    UNSPECIFIED = "unspecified"
    PENDING = "pending"
    RUNNING = "running"
    PAUSED = "paused"
    INCONCLUSIVE = "inconclusive"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
