"""Terms say in which tiers answers are kept and for how long, nobody longer than the model's own bound."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from polyroute.core.config import CacheConfig
from polyroute.routing.cache.terms import AnswerKey, Moment, Stay, Terms

DIGESTS = st.binary(min_size=32, max_size=32).map(bytes.hex)


def test_all_tiers_are_used_unless_some_are_named() -> None:
    assert Terms.of("m", CacheConfig(ttl=9)) == Terms("m", 9, Stay("memory"), (Stay("disk"), Stay("redis")))
    named = CacheConfig.model_validate({"tiers": {"redis": {"ttl": "1d"}, "memory": {"ttl": "5m"}}})
    assert Terms.of("m", named) == Terms("m", None, Stay("memory", 300), (Stay("redis", 86400),))
    assert Terms.of("m", CacheConfig.model_validate({"tiers": ["disk"]})) == Terms("m", None, None, (Stay("disk"),))


@given(DIGESTS, st.floats(1, 1e6), st.floats(1, 1e6), st.floats(0, 1e6))
def test_no_answer_stays_longer_than_it_may(digest: str, ttl_s: float, tier_s: float, age_s: float) -> None:
    stay_s = Terms("m", ttl_s).remaining_s(Stay("disk", tier_s), digest, age_s)
    assert stay_s is not None
    assert stay_s <= min(tier_s, ttl_s - age_s)
    assert stay_s >= min(0.9 * tier_s, 0.9 * ttl_s - age_s) - 1e-6
    assert Terms("m").remaining_s(Stay("disk"), digest, age_s) is None


def test_those_of_one_time_to_live_do_not_leave_together() -> None:
    stays = [Terms("m", 1000).remaining_s(Stay("disk"), AnswerKey.of(b"%d" % i, Moment()).digest) for i in range(200)]
    assert len(set(stays)) > 190


def test_an_answer_is_outlived_by_its_bound_alone() -> None:
    assert [Terms("m", 10).outlived(age_s) for age_s in (9, 10, 10.1)] == [False, False, True]
    assert not Terms("m").outlived(1e9)
