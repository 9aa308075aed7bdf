"""What the router shows of itself: models, plans and the cache, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from polyroute.core.backend import BackendStatus, ModelState


@dataclass(frozen=True, slots=True)
class VariantView:
    """One arm of a route; `share` is its part of the traffic, 0 to 1."""

    name: str
    model: str
    share: float


@dataclass(frozen=True, slots=True)
class ModelView:
    """A model or a named route as it stands now. A route's `status` is that of its readiest variant.

    `runs` are the answers in the making that equal calls share, or would share.
    """

    id: str
    type: Literal["local", "remote", "route"]
    status: BackendStatus
    in_flight: int = 0
    queued: int = 0
    max_concurrency: int = 0
    max_queue: int = 0
    runs: int = 0
    default: bool = False
    variants: tuple[VariantView, ...] = ()
    fallback: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RolloutStanding:
    """Where a route's rollout stands: its state, and the share that variant `to`, the new version, has of both, 0 to 1.

    `moves` has every state, with how often this router saw the rollout move into or within it. States are the names of
    `polyroute.v1.RolloutState` in small letters.
    """

    route: str
    state: str
    weight: float
    moves: Mapping[str, int]
    to: str = ""


@dataclass(frozen=True, slots=True)
class MemoryView:
    """What local models hold of a device's memory, in bytes, and may hold; None while that is not known."""

    device: str
    held_bytes: int
    budget_bytes: int | None


@dataclass(frozen=True, slots=True)
class PlannedAttempt:
    """One attempt of a plan. `cache` says in words what the cache would be asked, and why.

    `replica` is the one that would be chosen now, as `replica_reason` says in words; empty where that is not known.
    """

    deployment: str
    model: str
    version: str
    state: ModelState
    variant: str = ""
    fallback: bool = False
    cache: str = ""
    replica: str = ""
    replica_reason: str = ""


@dataclass(frozen=True, slots=True)
class PlannedShadow:
    """One shadow of a plan."""

    deployment: str
    sample: float


@dataclass(frozen=True, slots=True)
class Plan:
    """The ordered attempts for one call, and why they are these. Data only: executing it is the router's part."""

    requested: str
    attempts: tuple[PlannedAttempt, ...]
    shadows: tuple[PlannedShadow, ...] = ()
    reasons: tuple[str, ...] = ()
    sticky_by: str = ""
    hash_point: float | None = None
    probability: float | None = None


@dataclass(frozen=True, slots=True)
class ModelTokenCount:
    """Tokens of an input, and the model that counted them; `context_length` is 0 when not known."""

    prompt_tokens: int
    context_length: int
    model: str
    version: str


@dataclass(frozen=True, slots=True)
class TierStats:
    """One tier of the answer cache; hits, misses and errors count since the server started.

    `trouble` says in words why it is left out now; empty while it is used.
    """

    name: str
    location: str
    entries: int
    bytes: int
    max_bytes: int
    hits: int
    misses: int
    errors: int
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class TierCounts:
    """What a tier of the answer cache was asked and did since the server started, and whether it is used now.

    `bytes` and `max_bytes` are what it holds and may hold; None where to find out takes time.
    """

    name: str
    hits: int
    misses: int
    stores: int
    errors: int
    skipped: int
    read: bool = True
    written: bool = True
    bytes: int | None = None
    max_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class ModelTierStats:
    """What one tier holds of one model, in answers and bytes, and found for it since the server started."""

    name: str
    entries: int
    bytes: int
    hits: int


@dataclass(frozen=True, slots=True)
class SemanticStats:
    """The semantic tier as one model sees it; what is counted, is so since the server started.

    Of `lookups`, `near` found a request above the threshold, and `served` were answered with its answer. `compared`
    fresh answers were held against the one that would have been served: `agreed` of them were equal to it, and
    `mean_agreement` is how similar all were, 0 to 1, None while there are none. `skipped` went on without the tier.
    """

    mode: Literal["off", "measure", "serve"]
    threshold: float
    entries: int = 0
    bytes: int = 0
    lookups: int = 0
    near: int = 0
    served: int = 0
    compared: int = 0
    agreed: int = 0
    mean_agreement: float | None = None
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class ModelCacheStats:
    """The answer cache as one model sees it, since the server started; `tiers` are those that can tell.

    `semantic` is None where that tier is off for the model.
    """

    model: str
    hits: int = 0
    misses: int = 0
    stores: int = 0
    saved_tokens: int = 0
    saved_s: float = 0.0
    coalesced: int = 0
    tiers: tuple[ModelTierStats, ...] = ()
    semantic: SemanticStats | None = None


@dataclass(frozen=True, slots=True)
class CacheStats:
    """What the answer cache holds and how often it helped."""

    tiers: tuple[TierStats, ...]
    models: tuple[ModelCacheStats, ...]
