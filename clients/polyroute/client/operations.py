"""What an operator's calls answer, as plain values; read from the wire by `polyroute.client.wire`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from polyroute.client.enums import RolloutState, SemanticMode


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """One thing wrong with the configuration: file, line from 1, and path in the YAML."""

    file: str
    line: int
    path: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}"
        return f"{where}: {self.path}: {self.message}" if self.path else f"{where}: {self.message}"


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What a reload did; when there are `problems`, nothing was changed.

    Models that are `adjusted` kept what runs them; a change of the keys in `needs_restart` waits for the next start.
    """

    config_hash: str
    changed: bool
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    rebuilt: tuple[str, ...] = ()
    adjusted: tuple[str, ...] = ()
    needs_restart: tuple[str, ...] = ()
    problems: tuple[ConfigProblem, ...] = ()


@dataclass(frozen=True, slots=True)
class LastReload:
    """How a reload went: its `outcome`, or the `error` that kept it from one.

    `trigger` is what asked for it: `SIGHUP`, `file`, which had changed, or `call`.
    """

    time: datetime | None
    trigger: str
    outcome: Reloaded | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class RunningConfig:
    """The configuration in force as YAML, in which times are in seconds, sizes in bytes and secrets asterisks.

    `file` is empty where the server was started without one; `last_reload` is None before the first.
    """

    yaml: str
    config_hash: str
    file: str = ""
    in_force_since: datetime | None = None
    last_reload: LastReload | None = None


@dataclass(frozen=True, slots=True)
class CacheTier:
    """One tier of the answer cache; hits, misses and errors count since the server started.

    `trouble` says in words why it is left out now; empty while it is used.
    """

    name: str
    entries: int
    bytes: int
    max_bytes: int
    hits: int
    misses: int
    errors: int
    location: str = ""
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class CacheModelTier:
    """What one tier holds of one model, and how often it found an answer there since the server started."""

    name: str
    entries: int = 0
    bytes: int = 0
    hits: int = 0


@dataclass(frozen=True, slots=True)
class CacheSemanticStats:
    """The semantic tier as one model sees it; what is counted, is so since the server started.

    Of `lookups`, `near` found a request above the threshold, and `served` were answered with its answer. `compared`
    fresh answers were held against the one that would have been served: `agreed` of them were equal to it, and
    `mean_agreement` is how similar all were, 0 to 1. `skipped` went on without the tier.
    """

    mode: SemanticMode
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
class CacheModelStats:
    """The answer cache as one model sees it, since the server started; `tiers` are those that can tell.

    `semantic` is None where that tier is off for the model.
    """

    model: str
    hits: int = 0
    misses: int = 0
    stores: int = 0
    saved_tokens: int = 0
    saved_time_s: float | None = None
    tiers: tuple[CacheModelTier, ...] = ()
    coalesced: int = 0
    semantic: CacheSemanticStats | None = None


@dataclass(frozen=True, slots=True)
class CacheStats:
    """What the answer cache holds and how often it helped; tiers nearest first."""

    tiers: tuple[CacheTier, ...] = ()
    models: tuple[CacheModelStats, ...] = ()


@dataclass(frozen=True, slots=True)
class RolloutStep:
    """One planned step: the new version's share of the traffic (0 to 1), and what must pass before the next."""

    weight: float
    hold_s: float | None = None
    min_samples: int = 0


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a test has shown for one metric: the new version's difference, its always-valid interval, its e-value."""

    metric: str
    difference: float
    lower: float
    upper: float
    e_value: float
    samples_from: int = 0
    samples_to: int = 0


@dataclass(frozen=True, slots=True)
class RolloutTransition:
    """One change of a rollout's state."""

    time: datetime | None
    from_state: RolloutState = field(metadata={"wire": "from"})
    to_state: RolloutState = field(metadata={"wire": "to"})
    step: int = 0
    reason: str = ""
    actor: str = ""
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, slots=True)
class Rollout:
    """A rollout as it stands; `weight` is the new version's share of the traffic now, 0 to 1."""

    route: str
    from_variant: str = field(metadata={"wire": "from"})
    to_variant: str = field(metadata={"wire": "to"})
    state: RolloutState = RolloutState.UNSPECIFIED
    step: int = 0
    steps: tuple[RolloutStep, ...] = ()
    weight: float = 0.0
    evidence: tuple[Evidence, ...] = ()
    history: tuple[RolloutTransition, ...] = ()
    controller: str = ""


@dataclass(frozen=True, slots=True)
class SampleRatioCheck:
    """Whether traffic was split as configured, with the e-value against it."""

    ok: bool
    e_value: float = 0.0


@dataclass(frozen=True, slots=True)
class MetricEstimate:
    """One metric of one variant, with its always-valid interval."""

    metric: str
    unit: str
    value: float
    lower: float
    upper: float
    samples: int = 0


@dataclass(frozen=True, slots=True)
class VariantReport:
    """One variant of a report."""

    name: str
    model: str
    version: str
    samples: int = 0
    expected_share: float = 0.0
    metrics: tuple[MetricEstimate, ...] = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """The difference between a variant and the control; `samples_needed` is 0 when decided."""

    variant: str
    control: str
    evidence: Evidence | None = None
    guardrail: bool = False
    samples_needed: int = 0


@dataclass(frozen=True, slots=True)
class ShadowReport:
    """What one shadow showed; `missing` counts copies without a comparison, by cause."""

    deployment: str
    pairs: int = 0
    exact_matches: int = 0
    mean_edit_distance: float = 0.0
    missing: Mapping[str, int] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MetricPoint:
    """A metric as it stood at a time, over everything observed until then."""

    time: datetime | None
    value: float
    lower: float
    upper: float
    samples: int = 0


@dataclass(frozen=True, slots=True)
class MetricSeries:
    """One metric of one variant over time, oldest first."""

    variant: str
    metric: str
    points: tuple[MetricPoint, ...] = ()


@dataclass(frozen=True, slots=True)
class ExperimentReport:
    """What an experiment has shown so far; `summary` says what it means in one sentence.

    `notes` are what else one should know; `series` is empty unless it was asked for. `pinned` is what callers said of
    answers whose variant they had pinned, which counts for no comparison.
    """

    route: str
    summary: str = ""
    sample_ratio: SampleRatioCheck | None = None
    variants: tuple[VariantReport, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    shadows: tuple[ShadowReport, ...] = ()
    notes: tuple[str, ...] = ()
    series: tuple[MetricSeries, ...] = ()
    pinned: tuple[VariantReport, ...] = ()
