"""The adaptive limit finds what a peer bears, follows it, and learns nothing where there is nothing to see."""

from __future__ import annotations

import pytest
from benchmarks.concurrency.others import Gradient2
from benchmarks.concurrency.peer import Peer, Simulation

from polyroute.routing.adaptive import AdaptiveLimit

HOUR_S = 3600.0


def a_round(limit: AdaptiveLimit, now: float, first_token_s: float, in_flight: int | None = None) -> float:
    """Sixteen calls get their permits at `now`, and all their first tokens so much later; returns when that is."""
    busy = limit() if in_flight is None else in_flight
    for _ in range(16):
        limit.answered(now, now + first_token_s, busy)
    return now + first_token_s


def settled(first_token_s: float = 1.0) -> tuple[AdaptiveLimit, float]:
    """A limit of 64 at most that has just probed at `first_token_s`, and grown a little; and the time."""
    limit = AdaptiveLimit(1, 64)
    now = a_round(limit, 0.0, first_token_s)
    now = a_round(limit, now, first_token_s)
    for _ in range(4):
        now = a_round(limit, now, first_token_s)
    return limit, now


@pytest.mark.parametrize(("places", "least", "most"), [(1, 1, 2.5), (4, 3, 5.5), (16, 13, 19), (64, 54, 74)])
def test_it_converges_to_what_the_peer_answers_at_once(places: int, least: float, most: float) -> None:
    peer = Peer(places=places)
    course = Simulation(AdaptiveLimit(1, 512), peer).run(2 * HOUR_S)
    assert least <= course.limit <= most
    assert course.answered / (2 * HOUR_S) > 0.8 * peer.rate
    assert course.quantile_s(0.5) < 4 * peer.first_token_s


def test_without_probing_a_limit_takes_congestion_for_granted() -> None:
    """Why the time without congestion is looked for on purpose: an average of what is seen follows the queue."""
    course = Simulation(Gradient2(1, 512), Peer(places=16)).run(HOUR_S)
    assert course.limit > 10 * 16
    assert course.quantile_s(0.5) > 50


@pytest.mark.parametrize(("before", "after", "least", "most"), [(64, 16, 13, 20), (16, 64, 54, 74)])
def test_it_follows_a_peer_that_changes(before: int, after: int, least: float, most: float) -> None:
    simulation = Simulation(AdaptiveLimit(1, 512), Peer(places=before))
    simulation.change(HOUR_S / 2, places=after)
    assert least <= simulation.run(2 * HOUR_S).limit <= most


def test_longer_prompts_are_not_taken_for_congestion_for_ever() -> None:
    simulation = Simulation(AdaptiveLimit(1, 512), Peer(places=32))
    simulation.change(HOUR_S / 2, first_token_s=0.9)
    assert 27 <= simulation.run(2 * HOUR_S).limit <= 42


def test_a_peer_that_refuses_is_not_asked_for_more() -> None:
    course = Simulation(AdaptiveLimit(1, 512), Peer(places=32, most_waiting=0)).run(HOUR_S)
    assert 26 <= course.limit <= 33
    assert course.refused < course.answered / 10


def test_a_limit_that_is_not_used_does_not_move() -> None:
    limit, now = settled()
    before = limit()
    for _ in range(50):
        now = a_round(limit, now, 0.1, in_flight=before // 2)
    assert limit() == before
    assert limit.base_s == pytest.approx(0.1, rel=0.1)


def test_it_stays_within_its_bounds() -> None:
    limit, now = AdaptiveLimit(3, 20), 0.0
    assert AdaptiveLimit(8, 20)() == 8
    assert AdaptiveLimit(1, 2)() == 2
    for _ in range(50):
        now = a_round(limit, now, 1.0)
    assert limit() == 20
    for _ in range(50):
        limit.overloaded(now, now)
    assert limit() == 3


def test_it_grows_while_first_tokens_take_no_more_than_twice_as_long() -> None:
    limit, now = settled()
    before = limit()
    now = a_round(limit, now, 2.0)
    grown = limit()
    assert grown > before
    a_round(limit, now, 2.2)
    assert grown * 0.9 - 1 <= limit() < grown


def test_congestion_however_bad_takes_off_a_tenth_a_round() -> None:
    limit, now = settled()
    before = limit()
    a_round(limit, now, 100.0)
    assert limit() >= before * 0.9 - 1


def test_overload_counts_once_for_all_calls_that_were_running() -> None:
    limit, now = settled()
    before = limit()
    for _ in range(10):
        limit.overloaded(now - 1, now)
    assert limit() == before
    limit.overloaded(now, now + 1)
    cut = limit()
    assert cut < before
    for _ in range(10):
        limit.overloaded(now, now + 2)
    assert limit() == cut


def test_calls_from_before_a_change_say_nothing_about_it() -> None:
    limit, now = settled()
    before = limit()
    for _ in range(100):
        limit.answered(now - 0.5, now + 50, before)
    assert limit() == before


def test_the_time_without_congestion_is_looked_for_at_half_of_the_limit() -> None:
    limit, now = settled()
    now += 601
    before = limit()
    now = a_round(limit, now, 1.8)
    assert limit.probing
    assert limit() == before // 2
    a_round(limit, now, 1.2)
    assert not limit.probing
    assert limit() == before
    assert limit.base_s == pytest.approx(1.2)


def test_where_the_half_may_be_too_much_it_is_halved_again() -> None:
    limit = AdaptiveLimit(1, 512)
    now = a_round(limit, 0.0, 30.0)
    assert (limit(), limit.probing) == (2, True)
    now = a_round(limit, now, 8.0)
    assert (limit(), limit.probing) == (2, False)
    now = a_round(limit, now, 8.0)
    assert (limit(), limit.probing) == (1, True)
    a_round(limit, now, 0.3)
    assert limit.base_s == pytest.approx(0.3)
    assert limit() == 1


def test_overload_while_probing_ends_the_probe_where_it_is() -> None:
    limit, now = settled()
    now += 601
    before = limit()
    now = a_round(limit, now, 1.0)
    limit.overloaded(now, now)
    assert not limit.probing
    assert limit() < before // 2


def test_answers_that_take_no_time_are_no_congestion() -> None:
    limit, now = settled(first_token_s=0.0)
    before = limit()
    a_round(limit, now, 0.0)
    assert limit() > before


def test_it_says_how_it_stands() -> None:
    assert repr(AdaptiveLimit(1, 64)) == "<AdaptiveLimit 4 of 1-64, base None>"
