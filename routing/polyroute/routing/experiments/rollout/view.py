"""A rollout as it is shown."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from polyroute.core.config import RolloutConfig
from polyroute.routing.experiments.evidence import FEEDBACK
from polyroute.routing.experiments.rollout.decision import Standing, State
from polyroute.routing.experiments.rollout.evidence import Evidence
from polyroute.routing.experiments.rollout.guardrails import findings, interval

_LARGEST: Final = 690.0
"""Logarithms beyond this have no number any more."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What is known of one metric: how much worse the new version is, with an interval that holds at every look.

    `errors` in parts of all calls, times in parts of the old version's, feedback in parts of pairs of ratings.
    `e_value` is that against "the new version is worse by the guardrail's tolerance at most". `samples_from` and
    `samples_to` are the calls of each version that count; of feedback, the ratings that were compared.
    """

    metric: str
    difference: float
    lower: float
    upper: float
    e_value: float
    samples_from: int
    samples_to: int


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a rollout's state; `at` is Unix time in seconds, `step` and `weight` are those afterwards."""

    at: float
    before: State
    after: State
    step: int
    weight: float
    reason: str
    actor: str
    evidence: tuple[Shown, ...] = ()


@dataclass(frozen=True, slots=True)
class RolloutView:
    """A route's rollout as it stands; `weight` is the new version's share of the traffic of both, 0 to 1.

    `controller` is the router that decides; empty where none does.
    """

    route: str
    plan: RolloutConfig
    standing: Standing
    weight: float
    evidence: tuple[Shown, ...] = ()
    history: tuple[Change, ...] = ()
    controller: str = ""


def shown(plan: RolloutConfig, evidence: Evidence) -> tuple[Shown, ...]:
    """What the evidence says, by guardrail."""
    views = []
    for finding in findings(plan, evidence):
        found = interval(plan, evidence, finding.metric)
        e_value = math.exp(min(finding.log_worse, _LARGEST))
        rated = finding.metric.startswith(FEEDBACK)
        calls = (finding.count,) * 2 if rated else (evidence.old.calls, evidence.new.calls)
        views.append(Shown(finding.metric, found.estimate, found.lower, found.upper, e_value, *calls))
    return tuple(views)
