"""A report says whether the split can be trusted, what each variant does, and what is decided."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from polyroute.routing.experiments.database import Database
from polyroute.routing.experiments.evidence import Sum
from polyroute.routing.experiments.findings import Arm, Report
from polyroute.routing.experiments.records import CallRecord
from polyroute.routing.experiments.report import report
from polyroute.routing.experiments.store import Feedback, add_feedback, add_records
from polyroute.routing.experiments.tally import Entry, Tally, tally

ARMS = (Arm("a", "one", 0.5), Arm("b", "two", 0.5))
EVEN = {"s": {"a": 0.5, "b": 0.5}}
Make = Callable[..., CallRecord]


def entry(arm: str, metric: str, count: int, total: float, squares: float | None = None, **changes: Any) -> Entry:
    values = {"split": "s", "model": "m", "version": "1", "last": 60.0} | changes
    return Entry(arm=arm, metric=metric, sum=Sum(count, total, total if squares is None else squares), **values)


def on(*entries: Entry, shares: dict[str, dict[str, float]] | None = None, over_time: tuple[Entry, ...] = ()) -> Report:
    return report("chat", ARMS, "a", Tally(entries, shares or EVEN, over_time))


def assigned(a: int, b: int) -> tuple[Entry, Entry]:
    return entry("a", "assigned", a, a), entry("b", "assigned", b, b)


def test_before_the_first_call_there_is_nothing_to_say() -> None:
    found = on()
    assert found.summary == "No answer of `chat` has been recorded yet."
    assert found.split_ok
    assert [(arm.name, arm.answers, arm.estimates) for arm in found.arms] == [("a", 0, ()), ("b", 0, ())]


def test_a_split_that_is_not_as_configured_goes_before_everything_else() -> None:
    found = on(*assigned(6000, 5000), entry("a", "error_rate", 6000, 0), entry("b", "error_rate", 5000, 3000))
    assert not found.split_ok
    assert found.summary.startswith("Traffic was not split as configured")
    assert on(*assigned(5060, 5000)).split_ok


def test_each_split_is_checked_by_its_own_shares() -> None:
    shares = {"s": {"a": 0.9, "b": 0.1}, "t": {"a": 0.1, "b": 0.9}}
    entries = [
        entry(arm, "assigned", count, count, split=split)
        for split, arm, count in (("s", "a", 900), ("s", "b", 100), ("t", "a", 100), ("t", "b", 900))
    ]
    assert on(*entries, shares=shares).split_ok
    assert not on(*entries, shares={"s": EVEN["s"], "t": EVEN["s"]}).split_ok


def test_a_clear_difference_is_said_in_words_and_figures() -> None:
    found = on(*assigned(5000, 5000), entry("a", "error_rate", 5000, 250), entry("b", "error_rate", 5000, 600))
    (comparison,) = found.comparisons
    assert (comparison.variant, comparison.control, comparison.guardrail) == ("b", "a", True)
    assert comparison.interval.lower > 0
    assert comparison.decided
    assert comparison.needed == 0
    assert comparison.log_e > math.log(1000)
    assert found.summary == "`b` fails more often than `a`, by 7 points."
    estimate = found.arms[1].estimates[0]
    assert estimate.interval.estimate == pytest.approx(0.12)
    assert 0.1 < estimate.interval.lower < 0.12 < estimate.interval.upper < 0.14


def test_an_undecided_report_says_how_much_more_it_takes() -> None:
    found = on(*assigned(500, 500), entry("a", "error_rate", 500, 20), entry("b", "error_rate", 500, 28))
    (comparison,) = found.comparisons
    assert not comparison.decided
    assert 1000 < comparison.needed < 1_000_000
    assert found.summary == (
        f"Nothing is decided yet: error_rate is nearest, after about {comparison.needed:,} answers more."
    )


def test_a_few_answers_are_said_to_be_too_few() -> None:
    found = on(*assigned(30, 30), entry("a", "error_rate", 30, 0), entry("b", "error_rate", 9, 9))
    assert found.summary == "Nothing is decided yet: it takes 10 answers of each variant before anything can be said."


def test_equal_variants_are_not_said_to_differ() -> None:
    found = on(*assigned(500, 500), entry("a", "error_rate", 500, 20), entry("b", "error_rate", 500, 20))
    assert found.summary == "Nothing is decided yet, and nothing hints at a difference."


def test_numbers_and_times_have_units_and_come_in_order() -> None:
    entries = [
        entry(arm, metric, 1000, 1000 * mean, 1000 * (mean**2 + 0.01))
        for arm, shift in (("a", 1.0), ("b", 1.2))
        for metric, mean in (("feedback.rating", 3 * shift), ("total_s", 2 * shift), ("first_token_s", 0.5 * shift))
    ]
    found = on(*assigned(500, 500), *entries, entry("a", "error_rate", 1000, 0), entry("b", "error_rate", 1000, 0))
    assert [(e.metric, e.unit) for e in found.arms[0].estimates] == [
        ("error_rate", "1"),
        ("first_token_s", "s"),
        ("total_s", "s"),
        ("feedback.rating", "1"),
    ]
    assert found.summary == (
        "`b` takes longer to begin than `a`, by 0.1 s; `b` takes longer to finish than `a`, by 0.4 s; "
        "rating is higher with `b` than with `a`, by 0.6."
    )
    assert [c.guardrail for c in found.comparisons] == [True, True, True, False]


def test_the_latest_version_of_a_variant_counts_alone() -> None:
    found = on(
        *assigned(100, 100),
        entry("a", "error_rate", 50, 0),
        entry("b", "error_rate", 40, 40, version="1", last=60.0),
        entry("b", "error_rate", 30, 3, version="2", last=120.0),
    )
    assert [(arm.version, arm.answers) for arm in found.arms] == [("1", 50), ("2", 30)]
    assert "`b` also had 40 calls of version `1`, not counted here" in found.notes


def test_calls_without_a_version_do_not_hide_the_latest_one() -> None:
    """Such as those that failed after a restart, before the model had been asked which version it is."""
    found = on(
        *assigned(100, 100),
        entry("b", "error_rate", 30, 3, version="2", last=60.0),
        entry("b", "error_rate", 1, 1, version="", last=120.0),
    )
    assert found.arms[1].version == "2"
    assert "`b` also had 1 call from before its version was known, not counted here" in found.notes


def test_rates_without_a_failure_are_not_sure_though_shares_changed() -> None:
    shares = {"s": {"a": 0.5, "b": 0.5}, "t": {"a": 0.9, "b": 0.1}}
    entries = [entry(arm, "error_rate", 20, 0, split=split) for split in "st" for arm in "ab"]
    found = on(*entries, shares=shares)
    for arm in found.arms:
        (rate,) = arm.estimates
        assert rate.interval.lower == 0.0
        assert 0.05 < rate.interval.upper <= 1.0
    (comparison,) = found.comparisons
    assert comparison.interval.lower < -0.05 < 0.05 < comparison.interval.upper


def test_a_difference_of_rates_lies_between_less_one_and_one() -> None:
    few = on(entry("a", "error_rate", 3, 0), entry("b", "error_rate", 3, 1)).comparisons[0].interval
    assert (few.lower, few.upper) == (-1.0, 1.0)


def test_a_change_of_the_times_is_no_difference_of_the_variants_though_shares_changed() -> None:
    """Both fail 1% at first and 20% later, when `b` has grown from 10% to 90%: pooled, `b` would look far worse."""
    shares = {"s": {"a": 0.9, "b": 0.1}, "t": {"a": 0.1, "b": 0.9}}
    entries = [
        entry(arm, "error_rate", int(5000 * share), int(5000 * share * rate), split=split)
        for split, rate in (("s", 0.01), ("t", 0.2))
        for arm, share in shares[split].items()
    ]
    found = on(*entries, shares=shares)
    (comparison,) = found.comparisons
    assert not comparison.decided
    assert comparison.interval.estimate == pytest.approx(0.0, abs=0.01)
    assert any("shares changed meanwhile" in note for note in found.notes)


def test_those_kept_out_are_told_apart() -> None:
    found = on(*assigned(10, 10), entry("(holdout)", "error_rate", 7, 0))
    assert "7 answers went to callers that are kept out of the experiment (holdout)" in found.notes


def test_over_time_everything_until_then_counts() -> None:
    parts = tuple(
        entry("a", "error_rate", 100, errors, until=until) for until, errors in ((60.0, 10), (120.0, 0), (180.0, 2))
    )
    (series,) = on(*parts, over_time=parts).series
    assert (series.variant, series.metric) == ("a", "error_rate")
    assert [(p.at, p.count, p.interval.estimate) for p in series.points] == [
        (60.0, 100, 0.1),
        (120.0, 200, 0.05),
        (180.0, 300, 0.04),
    ]


async def test_what_is_recorded_is_what_is_reported(database: Database, record: Make) -> None:
    """From calls to a report, through the database: `b` fails a third of the time and is liked less."""
    chance = random.Random(7)
    batch = []
    for i in range(1200):
        arm = "ab"[chance.random() < 0.5]
        failed = arm == "b" and chance.random() < 1 / 3
        changes: dict[str, Any] = {"outcome": "PEER_FAILED", "fault": "PEER_FAILED"} if failed else {}
        batch.append(
            record(f"r{i}", variant=arm, at=6000.0 + i, hash_point=chance.random(), sticky_by="request", **changes)
        )
    await database.write(partial(add_records, batch=batch))
    for i, one in enumerate(batch):
        liked = chance.random() < (0.9 if one.variant == "a" else 0.6)
        given = Feedback(f"r{i}", "liked", float(liked), True, 9000.0, 9000.0)
        assert await database.write(partial(add_feedback, given=given))
    found = report("chat", ARMS, "a", await database.read(partial(tally, route="chat", since=0.0, points=10)))
    assert found.split_ok
    assert "`b` fails more often than `a`" in found.summary
    assert "liked is lower with `b` than with `a`" in found.summary
    ends = {series.metric: series.points[-1] for series in found.series if series.variant == "b"}
    latest = {estimate.metric: estimate for estimate in found.arms[1].estimates}
    assert {metric: point.interval for metric, point in ends.items()} == {m: e.interval for m, e in latest.items()}
    assert len(found.series[0].points) == 10
    later = await database.read(partial(tally, route="chat", since=7000.0))
    assert sum(arm.answers for arm in report("chat", ARMS, "a", later).arms) < 400


def test_what_callers_say_of_what_they_pinned_is_told_apart_and_compared_with_nothing() -> None:
    votes = [
        entry("(pinned) b", "feedback.preferred", 5, 4.5, 4.25),
        entry("(pinned) b", "feedback.preferred", 40, 40.0, version="0", last=1.0),
        entry("(pinned) gone", "feedback.preferred", 5, 0.0),
    ]
    found = on(*assigned(500, 500), entry("a", "error_rate", 500, 0), entry("b", "error_rate", 500, 0), *votes)
    (pinned,) = found.pinned
    assert (pinned.name, pinned.version, pinned.answers) == ("b", "1", 5)
    (estimate,) = pinned.estimates
    assert (estimate.metric, estimate.count, estimate.interval.estimate) == ("feedback.preferred", 5, 0.9)
    without = on(*assigned(500, 500), entry("a", "error_rate", 500, 0), entry("b", "error_rate", 500, 0))
    assert replace(found, pinned=()) == without


async def test_what_is_long_ago_is_read_by_the_hour_and_adds_up_to_the_same(database: Database, record: Make) -> None:
    hours = [record(f"r{i}", at=1800.0 + 3600 * i, sticky_by="request", hash_point=0.2) for i in range(60)]
    await database.write(partial(add_records, batch=hours[:40]))
    short = await database.read(partial(tally, route="chat", since=0.0, points=5))
    await database.write(partial(add_records, batch=hours[40:]))
    long = await database.read(partial(tally, route="chat", since=0.0, points=5))
    for found, count in ((short, 40), (long, 60)):
        assert {e.sum.count for e in found.entries if e.metric == "error_rate"} == {count}
        assert [e.sum.count for e in found.over_time if e.metric == "error_rate"] == [count // 5] * 5
    assert {entry.last % 3600 for entry in short.entries} == {1800.0}
    assert {entry.last % 3600 for entry in long.entries} == {0.0}
    late = await database.read(partial(tally, route="chat", since=3600.0 * 50))
    assert {e.sum.count for e in late.entries if e.metric == "error_rate"} == {10}
