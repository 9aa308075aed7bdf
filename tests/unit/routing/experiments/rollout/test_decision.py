"""Rollouts go on, wait, hold and turn back: the pure function, and any course that it may take."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyroute.core.backend import ModelState
from polyroute.core.config import RolloutConfig
from polyroute.core.errors import InvalidArgument
from polyroute.routing.experiments.pairs import Pairs
from polyroute.routing.experiments.ratio import Ratios
from polyroute.routing.experiments.rollout.decision import Action, Standing, State, Transition, act, decide, follow
from polyroute.routing.experiments.rollout.evidence import Evidence, Tally
from polyroute.routing.experiments.rollout.guardrails import interval

WARM, FAILED = ModelState.WARM, ModelState.FAILED


def plan(**keys: Any) -> RolloutConfig:
    steps = [{"weight": "5%", "hold": "10m", "min_samples": 50}, {"weight": "50%", "hold": "10m", "min_samples": 50}]
    return RolloutConfig.model_validate({"from": "old", "to": "new", "steps": steps} | keys)


def evidence(calls: int, worse: int = 0, better: int = 0, slower: float = 1.0) -> Evidence:
    """Of `calls` of each version, all paired; times alternate around the ratio `slower`."""
    times = Ratios.of((slower * (1.5 if i % 2 else 0.7), 1.0) for i in range(calls))
    pairs = Pairs(worse, calls - worse - better, better)
    return Evidence(Tally(calls, better), Tally(calls, worse), pairs, times, times)


def look(
    standing: Standing, seen: Evidence, now: float, *, old: ModelState = WARM, new: ModelState = WARM, **keys: Any
) -> Transition | None:
    return decide(plan(**keys), standing, seen, old, new, now)


RUNNING = Standing(State.RUNNING, 0, since=0.0)
HELD_S = 600.0


@pytest.mark.parametrize("model", [ModelState.LOADING, FAILED, ModelState.DRAINING, ModelState.UNSPECIFIED])
def test_it_does_not_begin_before_the_new_version_can_answer(model: ModelState) -> None:
    assert look(Standing(), Evidence(), 5.0, new=model) is None


@pytest.mark.parametrize("model", [WARM, ModelState.COLD])
def test_it_begins_with_the_first_step(model: ModelState) -> None:
    found = look(Standing(), Evidence(), 5.0, new=model)
    assert found == Transition(Standing(State.RUNNING, 0, 5.0, 0), "begins with 0.05 of the traffic")
    assert Standing().weight(plan()) == 0
    assert found.to.weight(plan()) == 0.05


def test_it_goes_on_once_time_answers_and_evidence_are_there() -> None:
    good = evidence(200)
    assert look(RUNNING, good, HELD_S - 1) is None
    assert look(replace(RUNNING, samples=151), good, HELD_S) is None
    found = look(RUNNING, good, HELD_S)
    assert found is not None
    assert found.to == Standing(State.RUNNING, 1, HELD_S, samples=200)
    last = look(replace(found.to, samples=100), good, 2 * HELD_S)
    assert last is not None
    assert last.to.state is State.PROMOTED
    assert last.to.weight(plan()) == 1
    assert "within every margin after 100 answers" in last.reason


@pytest.mark.parametrize("later", [1e3, 1e6, 1e9])
def test_without_traffic_it_waits_and_never_promotes(later: float) -> None:
    assert look(RUNNING, Evidence(), later) is None
    assert look(RUNNING, evidence(49), later) is None


def test_at_a_step_that_only_another_file_has_it_goes_on_as_at_the_last() -> None:
    found = look(replace(RUNNING, step=7), evidence(200), HELD_S)
    assert found is not None
    assert found.to.state is State.PROMOTED


def test_few_answers_show_too_little_to_go_on() -> None:
    assert look(RUNNING, evidence(60), HELD_S) is None


def test_what_stays_undecided_is_inconclusive_and_held() -> None:
    middling = evidence(400, worse=14, better=2)
    assert look(RUNNING, middling, 86400.0, undecided_after="2d") is None
    found = look(RUNNING, middling, 2 * 86400.0, undecided_after="2d")
    assert found is not None
    assert found.to == Standing(State.INCONCLUSIVE, 0, 2 * 86400.0, 0)
    assert found.reason.startswith("errors: neither")
    assert found.to.weight(plan()) == 0.05
    assert look(found.to, evidence(5_000), 9e9) is None  # an operator's turn


@pytest.mark.parametrize("state", [State.RUNNING, State.PAUSED, State.INCONCLUSIVE])
@pytest.mark.parametrize(
    ("seen", "why"),
    [
        (evidence(100, worse=18), "`new` fails more often (e-value"),
        (evidence(300, slower=2.0), "`new` begins to answer more slowly by more than 0.25 of the old time"),
        (replace(Evidence(), stop="5 calls in a row failed"), "`new`: 5 calls in a row failed"),
    ],
)
def test_it_turns_back_from_any_step_also_while_it_is_held(state: State, seen: Evidence, why: str) -> None:
    found = look(Standing(state, 1, 0.0), seen, 5.0)
    assert found is not None
    assert (found.to.state, found.to.step) == (State.ROLLED_BACK, 1)
    assert found.to.weight(plan()) == 0
    assert found.reason.startswith(why)


def test_it_turns_back_where_the_new_version_alone_has_no_healthy_replica() -> None:
    found = look(RUNNING, Evidence(), 5.0, new=FAILED)
    assert found is not None
    assert found.to.state is State.ROLLED_BACK
    assert look(RUNNING, Evidence(), 5.0, new=FAILED, old=FAILED) is None


def test_answers_that_callers_like_less_turn_it_back() -> None:
    rails = {"quality": {"helpful": {}}}
    silent, liked = evidence(200), replace(evidence(200), ratings={"helpful": Pairs(20, 160, 20)})
    assert look(RUNNING, silent, HELD_S, guardrails=rails) is None  # nobody has said anything
    stuck = look(RUNNING, silent, 8 * 86400.0, guardrails=rails)
    assert stuck is not None
    assert stuck.reason.startswith("feedback.helpful: neither")
    found = look(RUNNING, liked, HELD_S, guardrails=rails | {"quality": {"helpful": {"margin": "30%"}}})
    assert found is not None
    assert found.to.step == 1
    worse = replace(evidence(200), ratings={"helpful": Pairs(60, 130, 10)})
    back = look(RUNNING, worse, 5.0, guardrails=rails)
    assert back is not None
    assert back.reason.startswith("`new` has lower ratings more often by `feedback.helpful` (e-value")
    assert 0.25 in interval(plan(guardrails=rails), worse, "feedback.helpful")
    assert look(RUNNING, worse, 5.0) is None  # not watched


def test_a_guardrail_that_is_off_turns_nothing_back() -> None:
    slow = evidence(300, slower=3.0)
    rails = {"first_token": "off", "duration": "off"}
    found = look(RUNNING, slow, HELD_S, guardrails=rails)
    assert found is not None
    assert found.to.step == 1


def test_a_worse_version_within_the_tolerance_is_not_turned_back() -> None:
    worse = evidence(2_000, worse=60, better=20)
    assert look(RUNNING, worse, 5.0) is not None
    assert look(RUNNING, worse, 5.0, guardrails={"errors": {"tolerance": "3%", "margin": "6%"}}) is None


@pytest.mark.parametrize("state", [State.PROMOTED, State.ROLLED_BACK])
def test_what_has_ended_stays_so(state: State) -> None:
    assert look(Standing(state, 1), replace(evidence(500, worse=200), stop="x"), 1e9, new=FAILED) is None


def test_an_operator_pauses_resumes_promotes_and_rolls_back() -> None:
    seen = evidence(70)
    paused = act(plan(), RUNNING, seen, Action.PAUSE, "lunch", 5.0)
    assert paused == Transition(Standing(State.PAUSED, 0, 5.0, 0), "lunch")
    assert paused.to.weight(plan()) == 0.05
    resumed = act(plan(), paused.to, seen, Action.RESUME, "", 9.0)
    assert resumed == Transition(Standing(State.RUNNING, 0, 9.0, 70), "an operator asked to resume")
    assert act(plan(), Standing(), seen, Action.PROMOTE, "", 9.0).to.weight(plan()) == 1
    promoted = Standing(State.PROMOTED, 1)
    assert act(plan(), promoted, seen, Action.ROLL_BACK, "", 9.0).to.state is State.ROLLED_BACK


@pytest.mark.parametrize(
    ("state", "action"),
    [
        (State.PENDING, Action.PAUSE),
        (State.PAUSED, Action.PAUSE),
        (State.RUNNING, Action.RESUME),
        (State.ROLLED_BACK, Action.RESUME),
        (State.ROLLED_BACK, Action.PROMOTE),
        (State.PROMOTED, Action.PROMOTE),
        (State.ROLLED_BACK, Action.ROLL_BACK),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_state(state: State, action: Action) -> None:
    with pytest.raises(InvalidArgument, match=f"cannot {action.value} this rollout: it is"):
        act(plan(), Standing(state), Evidence(), action, "", 0.0)


@pytest.mark.parametrize(
    ("standing", "weight", "step"),
    [
        (RUNNING, 0.05, 1),
        (Standing(State.PAUSED, 1), 0.5, 2),
        (Standing(State.RUNNING, 0), 0.02, None),
        (Standing(State.RUNNING, 1), 0.02, 0),
        (Standing(State.PROMOTED, 1), 1.0, None),
        (Standing(), 0.0, None),
    ],
)
def test_changed_steps_are_followed_without_moving_anyone_back(
    standing: Standing, weight: float, step: int | None
) -> None:
    changed = plan(steps=[{"weight": w} for w in ("2%", "10%", "20%")])
    found = follow(changed, standing, weight, 7.0)
    expected = None if step is None else Standing(standing.state, step, 7.0, standing.samples)
    assert (found and found.to) == expected


def test_intervals_speak_of_how_much_worse_the_new_version_is() -> None:
    seen = evidence(1_000, worse=100, better=20, slower=2.0)
    errors, duration = interval(plan(), seen, "errors"), interval(plan(), seen, "duration")
    assert errors.lower < 0.08 < errors.upper
    assert errors.estimate == pytest.approx(0.08)
    assert duration.lower < 1.0 < duration.upper


moves = st.lists(
    st.tuples(
        st.sampled_from([None, *Action]),
        st.integers(0, 300),
        st.integers(0, 30),
        st.floats(0, 1e6),
        st.sampled_from([WARM, WARM, WARM, ModelState.LOADING, FAILED]),
    ),
    max_size=30,
)


@given(moves)
def test_any_course_keeps_the_rules(made: list[tuple[Action | None, int, int, float, ModelState]]) -> None:
    """No step is skipped; weights fall only to nothing; what has ended changes by an operator alone."""
    rollout, standing, seen, now = plan(), Standing(), Evidence(), 0.0
    for action, calls, worse, later_s, model in made:
        now += later_s
        seen += evidence(calls + worse, worse=worse)
        before = standing
        if action is None:
            found = decide(rollout, standing, seen, WARM, model, now)
        else:
            try:
                found = act(rollout, standing, seen, action, "", now)
            except InvalidArgument:
                found = None
        if found is None:
            continue
        standing = found.to
        assert found.reason
        assert standing != before
        assert standing.since == now
        if action is None:
            assert not before.state.ended
            assert standing.step - before.step in (0, 1)
            assert standing.weight(rollout) >= before.weight(rollout) or standing.state is State.ROLLED_BACK
            if standing.state is State.PROMOTED:
                assert before.state is State.RUNNING
                assert before.step == len(rollout.steps) - 1
                assert seen.new.calls - before.samples >= rollout.steps[-1].min_samples
                assert now - before.since >= rollout.steps[-1].hold
        elif action is not Action.PROMOTE:
            assert standing.weight(rollout) in (before.weight(rollout), 0.0)
