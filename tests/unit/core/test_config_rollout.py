"""What a rollout may say in a configuration."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import ValidationError

from polyroute.core.config import RolloutConfig, RouteConfig

ROLLOUT = {"from": "old", "to": "new", "steps": [{"weight": "5%"}, {"weight": 0.5, "hold": "1h", "min_samples": 9}]}


def rolled_out(**keys: Any) -> RouteConfig:
    variants = [{"name": "old", "model": "a"}, {"name": "new", "model": "b", "weight": 0}]
    return RouteConfig.model_validate({"id": "r", "variants": variants, "rollout": ROLLOUT} | keys)


def test_a_rollout_has_steps_and_guardrails() -> None:
    rollout = rolled_out().rollout
    assert rollout is not None
    assert [(step.weight, step.hold, step.min_samples) for step in rollout.steps] == [(0.05, 600, 50), (0.5, 3600, 9)]
    rails = rollout.guardrails
    assert rails.errors is not None
    assert rails.duration is not None
    assert (rails.errors.tolerance, rails.errors.margin) == (0.0, 0.05)
    assert (rails.duration.tolerance, rails.duration.margin) == (0.25, 1.0)
    off = RolloutConfig.model_validate(ROLLOUT | {"guardrails": {"errors": "off"}, "consecutive_failures": "off"})
    assert (off.guardrails.errors, off.consecutive_failures) == (None, None)


def test_what_callers_say_is_a_guardrail_by_its_metric() -> None:
    off = {"errors": "off", "first_token": "off", "duration": "off"}
    rails = RolloutConfig.model_validate(ROLLOUT | {"guardrails": off | {"quality": {"helpful": {}}}}).guardrails
    assert {name: (rail.tolerance, rail.margin) for name, rail in rails.quality.items()} == {"helpful": (0.0, 0.1)}
    with pytest.raises(ValidationError, match="two words"):
        RolloutConfig.model_validate(ROLLOUT | {"guardrails": {"quality": {"two words": {}}}})


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"to": "newer"}, "`rollout.to` is `newer`, which is none of the variants"),
        ({"from": "new"}, "`rollout` goes from `new` to itself"),
        ({"steps": []}, "at least 1 item"),
        ({"steps": [{"weight": 0.5}, {"weight": 0.2}]}, "a step's weight is 0.2 after 0.5; each must be more"),
        ({"steps": [{"weight": 1}]}, "less than 1"),
        ({"steps": [{"weight": "0%"}]}, "greater than 0"),
        ({"guardrails": {"errors": {"tolerance": 0.1}}}, "`margin` is 0.05, no more than `tolerance`, which is 0.1"),
        ({"guardrails": dict.fromkeys(("errors", "first_token", "duration"), "off")}, "every guardrail is off"),
        ({"consecutive_failures": 1}, "greater than or equal to 2"),
        ({"false_rollbacks": 0}, "greater than 0"),
        ({"from_": "old"}, "Extra inputs"),
    ],
)
def test_a_rollout_that_makes_no_sense_is_refused(keys: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(problem)):
        rolled_out(rollout=ROLLOUT | keys)


def test_a_rollout_needs_traffic_to_move() -> None:
    variants = [{"name": name, "model": name, "weight": name == "other"} for name in ("old", "new", "other")]
    with pytest.raises(ValidationError, match="the weights of `from` and `to` are 0"):
        rolled_out(variants=variants)


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"adaptive": {"floor": 0.4}, "variants": 3}, "`adaptive.floor` is 0.4; 3 variants need less than 0.333"),
        ({"adaptive": {}, "variants": 1}, "`adaptive` needs two variants at least"),
        ({"adaptive": {"metric": "speed"}}, "`speed` is neither error_rate nor feedback.NAME"),
        ({"adaptive": {"metric": "feedback.two words"}}, "is neither error_rate nor feedback.NAME"),
        ({"adaptive": {"floor": "50%"}}, "less than 0.5"),
        ({"adaptive": {}, "rollout": ROLLOUT}, "`rollout` and `adaptive` both move traffic"),
    ],
)
def test_an_adaptive_route_that_makes_no_sense_is_refused(keys: dict[str, Any], problem: str) -> None:
    count = keys.pop("variants", 2)
    variants = [{"name": name, "model": name} for name in ("old", "new", "other")[:count]]
    with pytest.raises(ValidationError, match=re.escape(problem)):
        RouteConfig.model_validate({"id": "r", "variants": variants} | keys)


def test_an_adaptive_route_has_defaults() -> None:
    variants = [{"name": name, "model": name} for name in ("a", "b")]
    adaptive = RouteConfig.model_validate({"id": "r", "variants": variants, "adaptive": {}}).adaptive
    assert adaptive is not None
    assert (adaptive.metric, adaptive.floor, adaptive.every, adaptive.window) == ("error_rate", 0.1, 60, 7 * 86400)
