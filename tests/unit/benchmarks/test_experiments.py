"""The simulations of experiments: their gate and tests, and a small run of the whole command."""

from __future__ import annotations

import random

import pytest
from benchmarks.experiments import __main__ as command
from benchmarks.experiments.flagger import Gate
from benchmarks.experiments.looking import alarms
from benchmarks.experiments.rollouts import VERSIONS, gated, rolled_out
from benchmarks.experiments.traffic import Outcome

from polyroute.routing.experiments.rollout.decision import State


def windows(gate: Gate, *minutes: list[Outcome]) -> None:
    for number, calls in enumerate(minutes, 1):
        for each in calls:
            gate.saw(each)
        gate.look(60.0 * number)


GOOD = [Outcome(0.0, False, 0.4, 2.0)] * 100
FAILING = [*GOOD[:95], *[Outcome(0.0, True, 0.4, 2.0)] * 5]
SLOW = [Outcome(0.0, False, 0.4, 20.0)] * 100


def test_the_gate_promotes_after_windows_that_pass() -> None:
    gate = Gate()
    windows(gate, *[GOOD] * 4)
    assert (gate.ended, gate.weight) == (None, pytest.approx(0.5))
    gate.look(300.0)
    assert gate.ended is None  # a window without calls does not pass
    windows(gate := Gate(), *[GOOD] * 6)
    assert gate.ended is True


@pytest.mark.parametrize("bad", [FAILING, SLOW, []])
def test_the_gate_turns_back_after_five_windows_that_do_not(bad: list[Outcome]) -> None:
    gate = Gate()
    windows(gate, *[bad] * 5)
    assert (gate.ended, gate.now) == (False, 300.0)


def test_a_bad_version_is_turned_back_and_a_healthy_one_promoted() -> None:
    assert rolled_out(VERSIONS["20% failing"], 600, random.Random(1)).state is State.ROLLED_BACK
    assert rolled_out(VERSIONS["2x slower"], 600, random.Random(1)).state is State.ROLLED_BACK
    assert rolled_out(VERSIONS["healthy"], 60, random.Random(1)).state is State.PROMOTED
    assert gated(VERSIONS["20% failing"], 600, random.Random(1)).state is State.ROLLED_BACK


def test_looking_again_and_again_misleads_the_z_test_alone() -> None:
    found = alarms(0.05, 0.05, 1_500, 40, seed=2)
    assert len(found["z-test, repeated"]) > 10
    assert len(found["confidence sequence"]) <= 4
    assert len(found["bets on pairs"]) <= 4


def test_the_command_prints_every_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--looks", "2", "--calls", "300", "--rollouts", "1"]) == 0
    printed = capsys.readouterr().out
    for title in (*VERSIONS, "confidence sequence", "fixed windows"):
        assert title in printed
