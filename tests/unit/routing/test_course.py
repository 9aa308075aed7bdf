"""What a call has gone through is told of whatever answers it, or of the failure that it ends with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import fields
from prometheus_client import CollectorRegistry

from polyroute.backends.echo import EchoBackend
from polyroute.core.call import Call
from polyroute.core.errors import DeadlineExceeded, InvalidArgument, Overloaded, PeerFailed
from polyroute.core.event import Attempt, CacheResult, Finished, FinishReason, Route, Started, Timing, Token, Whole
from polyroute.core.request import Request
from polyroute.routing.course import Course, begun
from polyroute.routing.gateway import Gateway
from polyroute.routing.metrics import Metrics
from polyroute.routing.plan import Decision
from tests.clock import Clock
from tests.counts import total

CONFIG = {
    "default_model": "chat",
    "models": [{"id": name, "type": "remote", "base_url": f"http://{name}:1"} for name in ("one", "two")],
    "routes": [{"id": "chat", "variants": [{"name": "v1", "model": "one"}], "fallback": ["two"]}],
}
CALL = Call(Request(prompt="a"), "r1", arrived=0.0, deadline=10.0)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def decision(build: Callable[..., Gateway]) -> Decision:
    return build(CONFIG, {name: EchoBackend(name) for name in ("one", "two")}).snapshot.decide(CALL)


@pytest.fixture
def course(decision: Decision, metrics: Metrics, clock: Clock) -> Course:
    return Course(CALL, decision, metrics, clock)


def test_time_that_failed_steps_took_was_the_models(course: Course, decision: Decision, clock: Clock) -> None:
    one, two = decision.steps
    course.begin(one)
    clock.now = 2.0
    assert course.goes_on(Overloaded("`one` is full"))
    course.begin(two)
    clock.now = 2.5
    started = course.saw(Started(Route()))
    assert isinstance(started, Started)
    assert course.answering
    tried = [(attempt.deployment, attempt.reason, attempt.duration_s) for attempt in started.route.attempts]
    assert tried == [("one", "OVERLOADED", 2.0), ("two", "", 0.5)]
    finished = course.saw(Finished(FinishReason.STOP, timing=Timing(backend_s=1.0)))
    assert isinstance(finished, Finished)
    assert finished.timing.backend_s == 3.0
    token = Token("a")
    assert course.saw(token) is token


def test_an_answer_in_one_piece_is_told_the_same(course: Course, decision: Decision, clock: Clock) -> None:
    one, two = decision.steps
    course.begin(one)
    clock.now = 2.0
    assert course.goes_on(Overloaded("`one` is full"))
    course.begin(two)
    whole = course.saw(Whole(Started(Route()), (Token("a"),), Finished(FinishReason.STOP)))
    assert isinstance(whole, Whole)
    assert course.answering
    assert [attempt.deployment for attempt in whole.started.route.attempts] == ["one", "two"]
    assert whole.finished.timing.backend_s == 2.0


def test_no_step_follows_the_last_or_an_error_that_is_the_callers(course: Course, decision: Decision) -> None:
    one, two = decision.steps
    course.begin(one)
    assert not course.goes_on(InvalidArgument("stop", "too many"))
    course.begin(two)
    failed = PeerFailed("`two` answered badly")
    assert not course.goes_on(failed)
    ended = course.ended(failed)
    assert ended.message == "`two` answered badly (tried before: `one` INVALID_ARGUMENT)"
    assert [attempt.deployment for attempt in ended.attempts] == ["one", "two"]


def test_no_step_is_begun_after_the_deadline(course: Course, decision: Decision, clock: Clock) -> None:
    one, two = decision.steps
    course.begin(one)
    clock.now = 10.0
    assert course.goes_on(Overloaded("`one` is full"))
    with pytest.raises(DeadlineExceeded, match="tried before: `one` OVERLOADED") as late:
        course.begin(two)
    assert [attempt.deployment for attempt in late.value.attempts] == ["one"]


@pytest.mark.parametrize(("shared", "counted"), [(False, 1), (True, 0)])
def test_what_failed_for_several_calls_is_counted_for_the_one_that_led(
    shared: bool, counted: int, course: Course, decision: Decision, registry: CollectorRegistry
) -> None:
    error = PeerFailed("gone")
    error.shared = shared
    course.begin(decision.steps[0])
    course.goes_on(error)
    assert (total(registry, "polyroute_attempts_total", outcome="PEER_FAILED") or 0) == counted


def test_what_a_backend_says_of_its_route_is_told(decision: Decision, metrics: Metrics) -> None:
    said: dict[str, Any] = {
        "model": "peer-model",
        "version": "v9",
        "replica": "r",
        "reasons": ("why",),
        "upstream": Route(model="far"),
        "attempts": (Attempt("", "r0", reason="UNAVAILABLE"),),
        "cache": CacheResult.COALESCED,
        "cache_age_s": 1.0,
        "cache_key": "ab",
    }
    ours = {"requested", "deployment", "variant", "trace_id", "sticky_by", "hash_point", "probability"}
    assert set(said) | ours == {field.name for field in fields(Route)}
    told = begun(Started(Route(**said)), CALL, decision, decision.steps[0], (), 0.0, metrics).route
    for name in set(said) - {"reasons", "attempts"}:
        assert getattr(told, name) == said[name]
    assert told.reasons[-1] == "why"
    tried = [(a.deployment, a.replica, a.reason) for a in told.attempts]
    assert tried == [("one", "r0", "UNAVAILABLE"), ("one", "r", "")]
