"""How calls of two versions are paired, and what stops one at once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyroute.routing.experiments.pairs import Pairs
from polyroute.routing.experiments.rollout.comparison import Comparison
from polyroute.routing.experiments.rollout.evidence import Evidence, Tally

NEW, OLD = True, False


def comparison(consecutive: int | None = 3) -> Comparison:
    return Comparison(Evidence(), consecutive)


def test_each_call_is_paired_with_the_latest_of_the_other_version() -> None:
    seen = comparison()
    seen.failed(OLD)
    seen.answered(OLD, 0.1, 1.0)
    seen.answered(NEW, 0.2, 4.0)  # with the one before it
    seen.answered(NEW, 0.2, 4.0)  # with the failure
    found = seen.evidence()
    assert found.errors == Pairs(worse=0, even=1, better=1)
    assert dict(found.first_token.buckets) == {16: 1}  # twice as long
    assert dict(found.duration.buckets) == {32: 1}
    assert (found.old, found.new) == (Tally(2, 1), Tally(2, 0))


def test_what_has_been_counted_is_not_counted_again() -> None:
    seen = comparison()
    seen.answered(OLD, 1, 1)
    seen.answered(NEW, 1, 1)
    assert seen.evidence() == seen.evidence()
    assert seen.evidence().errors.count == 1


def test_it_goes_on_from_the_evidence_that_was_kept() -> None:
    before = Evidence(Tally(5, 1), Tally(4, 2), Pairs(1, 3, 0))
    seen = Comparison(before, 3)
    seen.failed(NEW)
    assert seen.evidence().new == Tally(5, 3)
    assert seen.evidence().errors == before.errors


def test_a_version_without_much_traffic_leaves_most_of_the_others_calls_unpaired_and_forgotten() -> None:
    seen = comparison()
    for _ in range(1_000):
        seen.failed(OLD)
    for _ in range(100):
        seen.answered(NEW, 1, 1)
    assert seen.evidence().errors == Pairs(better=64)


def test_ratings_are_paired_by_their_metric_and_more_is_better() -> None:
    seen = comparison()
    for new, old in ((1, 0), (3.5, 4), (3, 3)):
        seen.rated(OLD, "stars", old)
        seen.rated(NEW, "stars", new)
    seen.rated(NEW, "helpful", 1)
    found = seen.evidence()
    assert found.rated("stars") == Pairs(worse=1, even=1, better=1)
    assert (found.rated("helpful"), found.rated("unheard of")) == (Pairs(), Pairs())
    seen.anew()
    seen.rated(OLD, "helpful", 0)
    assert seen.evidence().rated("helpful") == Pairs()
    assert Evidence.from_json(found.to_json()) == found
    assert (found + found).rated("stars") == Pairs(worse=2, even=2, better=2)


def test_where_traffic_is_shared_anew_nothing_is_compared_with_what_came_before() -> None:
    seen = comparison()
    for _ in range(2):
        seen.answered(OLD, 1, 1)
        seen.failed(NEW)
    seen.answered(OLD, 1, 1)
    seen.anew()
    seen.failed(NEW)
    assert not seen.stop
    found = seen.evidence()
    assert found.errors == Pairs(worse=2)
    assert found.duration.count == 0
    assert (found.old, found.new) == (Tally(3, 0), Tally(3, 3))


def test_failures_in_a_row_stop_the_new_version_while_the_old_one_answers() -> None:
    seen = comparison()
    seen.failed(NEW)
    seen.answered(OLD, 1, 1)
    seen.failed(NEW)
    assert not seen.stop
    seen.failed(NEW)
    assert seen.stop == "3 calls in a row failed, while the old version answered 1"
    seen.answered(NEW, 1, 1)
    assert seen.evidence().stop == seen.stop


def test_an_answer_between_begins_the_row_anew() -> None:
    seen = comparison()
    for _ in range(5):
        seen.answered(OLD, 1, 1)
        seen.failed(NEW)
        seen.failed(NEW)
        seen.answered(NEW, 1, 1)
    assert not seen.stop


def test_an_outage_of_both_versions_stops_neither() -> None:
    seen = comparison()
    for _ in range(50):
        seen.failed(OLD)
        seen.failed(NEW)
    assert not seen.stop


def test_without_calls_of_the_old_version_it_takes_twice_as_many() -> None:
    seen = comparison()
    for _ in range(5):
        seen.failed(NEW)
    assert not seen.stop
    seen.failed(NEW)
    assert seen.stop


def test_switched_off_it_stops_nothing_at_once() -> None:
    seen = comparison(None)
    seen.answered(OLD, 1, 1)
    for _ in range(100):
        seen.failed(NEW)
    assert not seen.stop


calls = st.lists(st.tuples(st.booleans(), st.booleans(), st.floats(0.001, 100), st.floats(0.001, 100)), max_size=80)


@given(calls, st.integers(0, 80))
def test_evidence_is_the_same_whenever_it_is_taken_and_survives_being_kept(
    made: list[tuple[bool, bool, float, float]], at: int
) -> None:
    whole, parts = comparison(), comparison()
    for i, (new, failed, first_token_s, total_s) in enumerate(made):
        for seen in (whole, parts):
            if failed:
                seen.failed(new)
            else:
                seen.answered(new, first_token_s, total_s)
        if i == at:
            parts.evidence()
    assert parts.evidence() == whole.evidence()
    assert Evidence.from_json(whole.evidence().to_json()) == whole.evidence()
    assert whole.evidence() + Evidence() == whole.evidence()


def test_evidence_of_two_routers_adds_up() -> None:
    one = Evidence(Tally(2, 1), Tally(1, 1), Pairs(1, 0, 0), stop="")
    other = Evidence(Tally(3, 0), Tally(2, 0), Pairs(0, 2, 0), stop="halt")
    both = one + other
    assert (both.old, both.new, both.errors, both.stop) == (Tally(5, 1), Tally(3, 1), Pairs(1, 2, 0), "halt")


@pytest.mark.parametrize("new", [True, False])
def test_times_of_a_call_that_counts_as_nothing_else_are_compared(new: bool) -> None:
    seen = comparison()
    seen.took(new, 8, 8)
    seen.answered(not new, 1, 1)
    found = seen.evidence()
    assert found.duration.count == 1
    assert found.errors.count == 0
