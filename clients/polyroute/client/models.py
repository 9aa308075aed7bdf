"""What a server says of its models and plans, as plain values; read from the wire by `polyroute.client.wire`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from polyroute.client.enums import BreakerState, ModelState, ModelType


@dataclass(frozen=True, slots=True)
class Replica:
    """One running instance of a model: a worker, or a peer's URL.

    `ejections` is how often its breaker has opened; `weight`, its share of its load, is less than 1 while it starts
    slowly.
    """

    name: str
    state: ModelState
    detail: str = ""
    in_flight: int = 0
    version: str = ""
    breaker: BreakerState = BreakerState.UNSPECIFIED
    ejections: int = 0
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Variant:
    """One arm of a route; `share` is its part of the traffic, 0 to 1."""

    name: str
    model: str
    share: float


@dataclass(frozen=True, slots=True)
class SamplingDefaults:
    """What a model does where a request leaves it open; `temperature` 0 is greedy, None of anything is not known.

    Without `max_tokens` only the context ends an answer.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None


@dataclass(frozen=True, slots=True)
class RolloutProgress:
    """How far a route's rollout is: variant `to`, the new version, has `weight` of the traffic of both, 0 to 1.

    `held`: it stands still, paused or out of time.
    """

    to: str
    weight: float = 0.0
    held: bool = False


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """A model or route as it stands now; `id` is the name to send as `model`, `detail` says why it is in its state."""

    id: str
    type: ModelType
    version: str
    state: ModelState
    detail: str = ""
    in_flight: int = 0
    queued: int = 0
    max_concurrency: int = 0
    max_queue: int = 0
    context_length: int = 0
    default: bool = False
    replicas: tuple[Replica, ...] = ()
    variants: tuple[Variant, ...] = ()
    fallback: tuple[str, ...] = ()
    chat: bool = False
    ready_since: datetime | None = None
    sampling_defaults: SamplingDefaults | None = None
    rollout: RolloutProgress | None = None


@dataclass(frozen=True, slots=True)
class PlannedAttempt:
    """One attempt of a plan; `cache` says in words what the cache would be asked."""

    deployment: str
    model: str
    version: str = ""
    variant: str = ""
    fallback: bool = False
    state: ModelState = ModelState.UNSPECIFIED
    cache: str = ""
    replica: str = ""
    replica_reason: str = ""

    def __str__(self) -> str:
        facts = [
            "fallback" if self.fallback else "",
            f"variant {self.variant}" if self.variant else "",
            f"model {self.model}" if self.model != self.deployment else "",
            f"version {self.version}" if self.version else "",
            "" if self.state is ModelState.UNSPECIFIED else str(self.state),
            self.cache,
            f"replica {self.replica}" if self.replica else "",
            self.replica_reason,
        ]
        told = ", ".join(fact for fact in facts if fact)
        return f"{self.deployment} ({told})" if told else self.deployment


@dataclass(frozen=True, slots=True)
class PlannedShadow:
    """One deployment that would receive a copy of this share of requests, 0 to 1."""

    deployment: str
    sample: float


@dataclass(frozen=True, slots=True)
class Plan:
    """The attempts that a request would get, in order, and why; `str(plan)` says it in words."""

    requested: str
    attempts: tuple[PlannedAttempt, ...] = ()
    shadows: tuple[PlannedShadow, ...] = ()
    reasons: tuple[str, ...] = ()
    sticky_by: str = ""
    hash_point: float | None = None

    def __str__(self) -> str:
        lines = [self.requested]
        lines += [f"  {i}. {attempt}" for i, attempt in enumerate(self.attempts, 1)]
        lines += [f"  shadow {shadow.deployment}: {shadow.sample:.1%} of requests" for shadow in self.shadows]
        lines += [f"  because {reason}" for reason in self.reasons]
        return "\n".join(lines)
