"""A breaker opens on what a replica does wrong, stays open for longer each time, and is tried with few calls."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from polyroute.backends.pool.breaker import Breaker, BreakerState
from polyroute.core.config import BreakerConfig

CONFIG = BreakerConfig(failures=3, ratio=0.5, min_calls=10, window=30, open=1, max_open=8, probes=2)


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class NoChance(random.Random):
    """Never shortens an open time."""

    def random(self) -> float:
        return 0.0


@pytest.fixture
def time() -> Time:
    return Time()


def a_breaker(time: Time, config: BreakerConfig | None = CONFIG) -> Breaker:
    return Breaker(config, clock=time, chance=NoChance())


def fail(breaker: Breaker, times: int = 1) -> None:
    for _ in range(times):
        breaker.failed(breaker.admit(), "gone")


def succeed(breaker: Breaker, times: int = 1) -> None:
    for _ in range(times):
        breaker.succeeded(breaker.admit())


def test_it_opens_on_failures_in_a_row(time: Time) -> None:
    breaker = a_breaker(time)
    fail(breaker, 2)
    succeed(breaker)
    fail(breaker, 2)
    assert breaker.state is BreakerState.CLOSED
    fail(breaker)
    assert (breaker.state, breaker.admits(), breaker.opens_for_s) == (BreakerState.OPEN, False, 1.0)
    assert breaker.why == "3 failures in a row, the last: gone"
    assert breaker.openings == 1


def test_it_tells_when_it_opens_and_heeds_what_another_tells(time: Time) -> None:
    told: list[tuple[float, str]] = []
    one = Breaker(CONFIG, clock=time, chance=NoChance(), on_open=lambda open_for_s, why: told.append((open_for_s, why)))
    other = Breaker(CONFIG, clock=time, chance=NoChance(), on_open=lambda *_: pytest.fail("it has seen nothing itself"))
    running = other.admit()
    fail(one, 3)
    assert told == [(1.0, "3 failures in a row, the last: gone")]
    other.heed(*told[0])
    assert (other.state, other.opens_for_s, other.openings, other.why) == (BreakerState.OPEN, 1.0, 0, one.why)
    other.succeeded(running)  # it was let in before
    assert other.state is BreakerState.OPEN
    time.now += 1
    other.heed(5.0, "again")  # it is about to see for itself
    succeed(other)
    assert other.state is BreakerState.CLOSED
    never = Breaker(None, clock=time, chance=NoChance())
    never.heed(5.0, "gone")
    assert never.admits()


def test_what_it_has_heeded_long_ago_makes_no_later_illness_longer(time: Time) -> None:
    breaker = a_breaker(time)
    for _ in range(5):
        breaker.heed(1.0, "gone")
        time.now += 1
        succeed(breaker)
        time.now += CONFIG.window + 1
    breaker.heed(1.0, "gone")
    time.now += 1
    fail(breaker)
    assert breaker.opens_for_s == 2 * CONFIG.open


def test_it_opens_on_a_share_of_failures_among_enough_calls(time: Time) -> None:
    breaker = a_breaker(time)
    for _ in range(4):
        fail(breaker)
        succeed(breaker)
    assert breaker.state is BreakerState.CLOSED
    fail(breaker, 2)
    assert breaker.state is BreakerState.OPEN
    assert breaker.why == "6 of 10 calls failed, the last: gone"


def test_ten_bad_calls_among_good_traffic_do_not_open_it(time: Time) -> None:
    breaker = a_breaker(time)
    for _ in range(10):
        succeed(breaker, 9)
        fail(breaker)
    assert breaker.state is BreakerState.CLOSED


def test_what_is_older_than_the_window_does_not_count(time: Time) -> None:
    breaker = a_breaker(time)
    for _ in range(4):
        fail(breaker)
        succeed(breaker)
    time.now += 31
    succeed(breaker, 8)
    fail(breaker, 2)
    assert breaker.state is BreakerState.CLOSED


def test_open_times_double_up_to_the_longest_and_begin_anew_once_it_was_well_for_a_window(time: Time) -> None:
    breaker = a_breaker(time)
    fail(breaker, 3)
    waits = []
    for _ in range(5):
        waits.append(breaker.opens_for_s)
        time.now += breaker.opens_for_s
        fail(breaker)
    assert waits == [1, 2, 4, 8, 8]
    time.now += 8
    succeed(breaker)
    fail(breaker, 3)
    assert breaker.opens_for_s == 8  # it flaps
    time.now += 8
    succeed(breaker)
    time.now += 31
    fail(breaker, 3)
    assert breaker.opens_for_s == 1


def test_open_times_are_jittered(time: Time) -> None:
    waits = set()
    for seed in range(50):
        breaker = Breaker(CONFIG, clock=time, chance=random.Random(seed))
        fail(breaker, 3)
        waits.add(breaker.opens_for_s)
    assert len(waits) == 50
    assert 0.5 <= min(waits) < 0.6
    assert 0.9 < max(waits) <= 1


def test_half_open_lets_few_calls_through_and_the_first_answer_closes_it(time: Time) -> None:
    breaker = a_breaker(time)
    fail(breaker, 3)
    time.now += 1
    assert breaker.state is BreakerState.HALF_OPEN
    first, second = breaker.admit(), breaker.admit()
    assert not breaker.admits()
    breaker.left(first)  # cancelled: says nothing, and frees its place
    assert breaker.admits()
    breaker.answering(second)
    assert breaker.state is BreakerState.CLOSED


def test_a_failure_opens_a_half_open_one_again(time: Time) -> None:
    breaker = a_breaker(time)
    fail(breaker, 3)
    time.now += 1
    fail(breaker)
    assert (breaker.state, breaker.openings, breaker.why) == (BreakerState.OPEN, 2, "gone")


def test_a_health_probe_ends_the_open_time(time: Time) -> None:
    breaker = a_breaker(time)
    breaker.half_open()
    assert breaker.state is BreakerState.CLOSED
    fail(breaker, 3)
    breaker.half_open()
    assert breaker.state is BreakerState.HALF_OPEN


def test_a_health_probe_that_misled_is_not_believed_again_until_it_is_well(time: Time) -> None:
    breaker = a_breaker(time)
    fail(breaker, 3)
    breaker.half_open()
    fail(breaker)
    breaker.half_open()
    assert breaker.state is BreakerState.OPEN
    time.now += 2
    succeed(breaker)
    fail(breaker, 3)
    breaker.half_open()
    assert breaker.state is BreakerState.HALF_OPEN


def test_calls_let_in_before_it_changed_change_nothing_when_they_end(time: Time) -> None:
    breaker = a_breaker(time)
    old = [breaker.admit() for _ in range(4)]
    fail(breaker, 3)
    breaker.succeeded(old[0])
    assert breaker.state is BreakerState.OPEN
    time.now += 1
    breaker.failed(old[1], "late")
    breaker.left(old[2])
    assert breaker.state is BreakerState.HALF_OPEN
    succeed(breaker)
    for _ in range(5):
        breaker.failed(old[3], "late")
    assert breaker.state is BreakerState.CLOSED


def test_off_it_never_opens(time: Time) -> None:
    breaker = a_breaker(time, None)
    fail(breaker, 1000)
    assert breaker.admits()


class BreakerMachine(RuleBasedStateMachine):
    """Whatever happens in whatever order: trials are bounded, none gets through while it is open, nothing is stuck."""

    @initialize()
    def begin(self) -> None:
        self.time = Time()
        self.breaker = Breaker(CONFIG, clock=self.time, chance=random.Random(0))
        self.admitted: list[tuple[int, int]] = []

    @precondition(lambda self: self.breaker.admits())
    @rule()
    def call(self) -> None:
        self.admitted.append((self.breaker.admit(), self.breaker.openings))

    @precondition(lambda self: self.admitted)
    @rule(which=st.integers(0, 100), outcome=st.sampled_from(["succeeded", "failed", "left"]))
    def end(self, which: int, outcome: str) -> None:
        admission, openings = self.admitted.pop(which % len(self.admitted))
        before = self.breaker.state
        if outcome == "failed":
            self.breaker.failed(admission, "gone")
        else:
            getattr(self.breaker, outcome)(admission)
        if openings < self.breaker.openings and before is BreakerState.OPEN:
            assert self.breaker.state is BreakerState.OPEN  # it was let in before: it says nothing now

    @rule(seconds=st.floats(0.01, 10))
    def wait(self, seconds: float) -> None:
        self.time.now += seconds

    @rule()
    def probed(self) -> None:
        self.breaker.half_open()

    @invariant()
    def bounded(self) -> None:
        breaker = self.breaker
        assert breaker.opens_for_s <= CONFIG.max_open
        if breaker.state is BreakerState.OPEN:
            assert not breaker.admits()
            assert breaker.opens_for_s > 0
        if breaker.state is BreakerState.HALF_OPEN:
            trials = sum(admission == breaker._era for admission, _ in self.admitted)
            assert trials <= CONFIG.probes
            assert breaker.admits() == (trials < CONFIG.probes)
        if breaker.state is BreakerState.CLOSED:
            assert breaker.admits()


TestBreakerMachine = BreakerMachine.TestCase
TestBreakerMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.booleans(), max_size=60))
def test_a_replica_that_answers_more_than_it_fails_is_never_shut_out(outcomes: list[bool]) -> None:
    """Each failure between two answers: neither in a row nor by share."""
    breaker = a_breaker(Time())
    for bad in outcomes:
        if bad:
            fail(breaker)
        succeed(breaker, 2)
    assert breaker.state is BreakerState.CLOSED
