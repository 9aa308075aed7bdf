"""What may be said of a rollout: its steps, and what must not get worse."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from polyroute.core.config.values import FEEDBACK_METRIC, Name, OrOff, Seconds, Section, Share


class RolloutStepConfig(Section):
    """One step of a rollout: the new version's share of the traffic, how long it stays there at least, in seconds, and
    how many answers of the new version it takes at least."""

    weight: Annotated[Share, Field(gt=0, lt=1)]
    hold: Seconds = 600.0
    min_samples: int = Field(default=50, ge=1)


class GuardrailConfig(Section):
    """How much worse the new version may be: it turns back once it is shown to be worse by more than `tolerance`, and
    goes on once it is shown to be worse by less than `margin`. What lies between is undecided."""

    tolerance: Annotated[Share, Field(ge=0)] = 0.0
    margin: Annotated[Share, Field(gt=0)] = 0.05

    @model_validator(mode="after")
    def _room(self) -> Self:
        if self.margin <= self.tolerance:
            raise ValueError(f"`margin` is {self.margin:g}, no more than `tolerance`, which is {self.tolerance:g}")
        return self


class ErrorsGuardrailConfig(GuardrailConfig):
    """The same in parts of the calls: a `margin` of 0.05 is five calls in a hundred more that fail."""

    margin: Annotated[Share, Field(gt=0, lt=1)] = 0.05


class TimeGuardrailConfig(GuardrailConfig):
    """The same in parts of the old version's time: a `tolerance` of 0.25 is a quarter slower, in the median."""

    tolerance: Annotated[Share, Field(ge=0)] = 0.25
    margin: Annotated[Share, Field(gt=0)] = 1.0


class QualityGuardrailConfig(GuardrailConfig):
    """The same in parts of pairs of answers that callers rated: a `margin` of 0.1 is one pair in ten more in which the
    new version's answer has the lower rating."""

    margin: Annotated[Share, Field(gt=0, lt=1)] = 0.1


class GuardrailsConfig(Section):
    """What a rollout watches: the share of calls that fail, the time to the first token, and to the last; and what
    callers say of answers, by the metric of their feedback, of which more is better."""

    errors: Annotated[ErrorsGuardrailConfig | None, OrOff] = ErrorsGuardrailConfig()
    first_token: Annotated[TimeGuardrailConfig | None, OrOff] = TimeGuardrailConfig()
    duration: Annotated[TimeGuardrailConfig | None, OrOff] = TimeGuardrailConfig()
    quality: dict[Annotated[str, Field(pattern=FEEDBACK_METRIC)], QualityGuardrailConfig] = Field(
        default={}, max_length=8
    )

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.errors is None and self.first_token is None and self.duration is None and not self.quality:
            raise ValueError("every guardrail is off: nothing would hold a bad version up")
        return self


class RolloutConfig(Section):
    """How the traffic of the variant `from` moves to the variant `to`, step by step, and when it turns back.

    `false_rollbacks` and `false_advances` are the probabilities with which a version that is no worse is turned back,
    and one that is worse by the margin goes on, at any time of the whole rollout. `consecutive_failures` of the new
    version, while the old one answers, turn it back at once. A step that is undecided after `undecided_after` seconds
    is inconclusive. Another `run` begins a rollout anew that has ended.
    """

    from_: Name = Field(alias="from")
    to: Name
    steps: tuple[RolloutStepConfig, ...] = Field(min_length=1, max_length=100)
    guardrails: GuardrailsConfig = GuardrailsConfig()
    false_rollbacks: float = Field(default=0.01, gt=0, le=0.5)
    false_advances: float = Field(default=0.05, gt=0, le=0.5)
    consecutive_failures: Annotated[Annotated[int, Field(ge=2, le=1000)] | None, OrOff] = 5
    undecided_after: Seconds = 7 * 86400.0
    run: int = Field(default=1, ge=1)

    @field_validator("steps")
    @classmethod
    def _upwards(cls, steps: tuple[RolloutStepConfig, ...]) -> tuple[RolloutStepConfig, ...]:
        for before, step in pairwise(steps):
            if step.weight <= before.weight:
                raise ValueError(f"a step's weight is {step.weight:g} after {before.weight:g}; each must be more")
        return steps
