"""What a rollout's evidence says of each guardrail."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from polyroute.core.config import GuardrailConfig, RolloutConfig
from polyroute.routing.experiments import pairs, ratio
from polyroute.routing.experiments.evidence import FEEDBACK
from polyroute.routing.experiments.interval import Interval
from polyroute.routing.experiments.rollout.evidence import Evidence


@dataclass(frozen=True, slots=True)
class Finding:
    """What is known of one metric; valid however often it is looked at.

    `log_worse` and `log_within` are the logarithms of the e-values against "worse by the tolerance at most" and against
    "worse by the margin at least". `count` is how many calls of each version were compared.
    """

    metric: str
    rail: GuardrailConfig
    log_worse: float
    log_within: float
    count: int

    @property
    def worse(self) -> str:
        """What the new version has been shown to do where it has been shown to be worse, in words."""
        beyond = f" by more than {self.rail.tolerance:.3g}" if self.rail.tolerance else ""
        shown = f"(e-value {math.exp(min(self.log_worse, 690)):.3g})"
        if self.metric == "errors":
            return f"fails more often{beyond} {shown}"
        if self.metric.startswith(FEEDBACK):
            return f"has lower ratings more often{beyond} by `{self.metric}` {shown}"
        what = "begins to answer" if self.metric == "first_token" else "answers"
        return f"{what} more slowly{f'{beyond} of the old time' if beyond else ''} {shown}"


def findings(plan: RolloutConfig, evidence: Evidence) -> Iterator[Finding]:
    """What the evidence shows, by guardrail that is on."""
    rails = plan.guardrails
    if (errors := rails.errors) is not None:
        seen = evidence.errors
        worse, within = pairs.log_e_worse(seen, errors.tolerance), pairs.log_e_not_worse(seen, errors.margin)
        yield Finding("errors", errors, worse, within, seen.count)
    for metric, rail, times in (
        ("first_token", rails.first_token, evidence.first_token),
        ("duration", rails.duration, evidence.duration),
    ):
        if rail is not None:
            slower = ratio.log_e_slower(times, 1 + rail.tolerance)
            yield Finding(metric, rail, slower, ratio.log_e_not_slower(times, 1 + rail.margin), times.count)
    for name, quality in rails.quality.items():
        rated = evidence.rated(name)
        worse, within = pairs.log_e_worse(rated, quality.tolerance), pairs.log_e_not_worse(rated, quality.margin)
        yield Finding(FEEDBACK + name, quality, worse, within, rated.count)


def enough_worse(plan: RolloutConfig) -> float:
    """The logarithm of the e-value from which on a version is worse: of all guardrails together one turns a version
    that is not back with probability `false_rollbacks`, ever."""
    return math.log(_count(plan) / plan.false_rollbacks)


def enough_within(plan: RolloutConfig) -> float:
    """The logarithm of the e-value from which on a version is within a margin; it has to be within every one."""
    return math.log(1 / plan.false_advances)


def interval(plan: RolloutConfig, evidence: Evidence, metric: str) -> Interval:
    """How much worse the new version is: an interval that holds the truth together with those of the others.

    Of `errors` in parts of all calls; of feedback in parts of all pairs of ratings; of `first_token` and `duration` in
    parts of the old version's time, where 0.25 is a quarter slower in the median. They are wrong at any time with
    probability `false_rollbacks`.
    """
    alpha = plan.false_rollbacks / _count(plan)
    if metric == "errors":
        return pairs.interval(evidence.errors, alpha)
    if metric.startswith(FEEDBACK):
        return pairs.interval(evidence.rated(metric.removeprefix(FEEDBACK)), alpha)
    found = ratio.interval(evidence.first_token if metric == "first_token" else evidence.duration, alpha)
    return Interval(found.estimate - 1, found.lower - 1, found.upper - 1)


def _count(plan: RolloutConfig) -> int:
    rails = plan.guardrails
    return sum(rail is not None for rail in (rails.errors, rails.first_token, rails.duration)) + len(rails.quality)
