"""Each way to choose a replica: by load, in turn, or by the key that a caller gave."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyroute.backends.pool.balance import BOUND, SLACK, Balance, BalanceName, Candidate, balance_of
from polyroute.core.call import Call
from polyroute.core.request import Request, RoutingOptions

KINDS: list[BalanceName] = ["least_outstanding", "round_robin", "prefix"]
BUSY = st.lists(
    st.builds(Candidate, st.text(max_size=3), st.integers(0, 200), st.floats(0.05, 1)),
    min_size=1,
    max_size=8,
    unique_by=lambda candidate: candidate.name,
)


def call(affinity_key: str = "", prompt: str = "hi") -> Call:
    return Call(Request(model="m", prompt=prompt, routing=RoutingOptions(affinity_key=affinity_key)), "r1")


def balance(kind: BalanceName) -> Balance:
    return balance_of(kind, random.Random(7))


def idle(count: int) -> list[Candidate]:
    return [Candidate(f"r{i}", 0) for i in range(count)]


def chosen(by: Balance, candidates: list[Candidate], calls: int, asked: Call | None = None) -> Counter[str]:
    """How often each is chosen when all calls end before the next begins."""
    asked = asked or call()
    return Counter(by.choose(candidates, asked).name for _ in range(calls))


def assert_share(hits: int, calls: int, share: float) -> None:
    """Within five standard deviations of a binomial; the seed is fixed, so this never changes."""
    assert abs(hits - calls * share) <= 5 * math.sqrt(calls * share * (1 - share))


@pytest.mark.parametrize("kind", KINDS)
@given(candidates=BUSY, key=st.text(max_size=3), seed=st.integers())
def test_the_choice_is_one_of_the_candidates(
    kind: BalanceName, candidates: list[Candidate], key: str, seed: int
) -> None:
    by = balance_of(kind, random.Random(seed))
    for _ in range(3):
        choice = by.choose(candidates, call(key))
        assert choice.name in {candidate.name for candidate in candidates}
        assert bool(choice.reason) == (len(candidates) > 1)


@pytest.mark.parametrize("kind", KINDS)
def test_idle_replicas_get_their_weights_share(kind: BalanceName) -> None:
    """Ties, which are all there is here, never fall to one replica alone."""
    candidates = [Candidate("a", 0), Candidate("b", 0, 0.5), Candidate("c", 0, 0.1)]
    hits = chosen(balance(kind), candidates, 16_000)
    for candidate in candidates:
        assert_share(hits[candidate.name], 16_000, candidate.weight / 1.6)


def test_of_two_replicas_the_less_busy_gets_every_call() -> None:
    two = [Candidate("a", 3), Candidate("b", 2)]
    assert chosen(balance("least_outstanding"), two, 50) == {"b": 50}
    assert balance("least_outstanding").choose(two, call()).reason == "`b` has 2 in flight, `a` 3"


def test_the_busiest_of_many_never_gets_a_call() -> None:
    many = [Candidate(f"r{i}", i) for i in range(5)]
    hits = chosen(balance("least_outstanding"), many, 10_000)
    for rank in range(5):  # r is chosen with any of those above it: (4 - r) of 10 pairs
        assert_share(hits[f"r{rank}"], 10_000, (4 - rank) / 10)


def test_two_choices_keep_counts_nearly_even() -> None:
    """10,000 calls that stay: the fullest of 100 replicas is a few above the mean, where chance would be 30 above."""
    by, counts = balance("least_outstanding"), {f"r{i}": 0 for i in range(100)}
    for _ in range(10_000):
        counts[by.choose([Candidate(name, count) for name, count in counts.items()], call()).name] += 1
    assert max(counts.values()) <= 103


def test_a_recovering_replica_is_full_sooner() -> None:
    two = [Candidate("a", 8), Candidate("b", 1, 0.1)]
    assert chosen(balance("least_outstanding"), two, 50) == {"a": 50}


def test_round_robin_is_as_even_as_its_weights_allow() -> None:
    by, candidates = balance("round_robin"), [Candidate("a", 9), Candidate("b", 0, 0.5), Candidate("c", 5, 0.5)]
    turns = [by.choose(candidates, call()).name for _ in range(40)]
    assert all(Counter(turns[at : at + 4]) == {"a": 2, "b": 1, "c": 1} for at in range(0, 40, 4))
    assert by.choose(candidates, call()).reason.startswith("it is the turn of `")


def test_round_robins_do_not_all_begin_with_the_same_replica() -> None:
    first = Counter(balance_of("round_robin", random.Random(s)).choose(idle(4), call()).name for s in range(400))
    assert all(first[name] > 50 for name in ("r0", "r1", "r2", "r3"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_replica_that_left_may_come_back(kind: BalanceName) -> None:
    by = balance(kind)
    chosen(by, idle(3), 10)
    by.forget("r1")
    by.forget("nobody")
    assert set(chosen(by, [c for c in idle(3) if c.name != "r1"], 10)) == {"r0", "r2"}
    assert_share(chosen(by, idle(3), 9_000)["r1"], 9_000, 1 / 3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_stays_on_its_replica(kind: BalanceName) -> None:
    by = balance(kind)
    home = by.choose(idle(5), call("ada"))
    assert chosen(by, idle(5)[::-1], 20, call("ada")) == {home.name: 20}
    assert chosen(balance_of(kind, random.Random(8)), idle(5), 20, call("ada")) == {home.name: 20}
    assert home.reason == f"affinity_key keeps the call on `{home.name}`"


def test_keys_spread_evenly() -> None:
    by = balance("least_outstanding")
    hits = Counter(by.choose(idle(5), call(f"key-{i}")).name for i in range(10_000))
    for candidate in idle(5):
        assert_share(hits[candidate.name], 10_000, 1 / 5)


def test_a_prompts_beginning_leads_to_the_replica_that_had_it() -> None:
    by, opening = balance("prefix"), "You are a helpful assistant. " * 200
    home = by.choose(idle(5), call(prompt=opening + "What is HTTP?")).name
    again = call(prompt=opening + "What is TCP?")
    assert chosen(by, idle(5)[::-1], 30, again) == {home: 30}
    assert by.choose(idle(5), again).reason == f"`{home}` has had the first 5120 characters of this prompt"


def test_the_longest_beginning_decides() -> None:
    by, busy = balance("prefix"), [Candidate("a", 2), Candidate("b", 0)]
    by.choose(busy[:1], call(prompt="x" * 4096 + "y" * 4096))
    by.choose(busy[1:], call(prompt="x" * 4096 + "z" * 4096))
    assert by.choose(busy, call(prompt="x" * 4096 + "y" * 9000)).name == "a"
    assert by.choose(busy, call(prompt="x" * 4096 + "z" * 9000)).name == "b"
    assert by.choose(busy, call(prompt="x" * 4096)).name == "b"  # both have had it; b is less busy


def test_a_call_that_only_asks_is_not_remembered() -> None:
    by, two = balance("prefix"), [Candidate("a", 1), Candidate("b", 0)]
    prompt = call(prompt="p" * 4096)
    by.choose(two[:1], prompt, goes=False)
    assert by.choose(two, prompt, goes=False).name == "b"
    turns = balance("round_robin")
    told = turns.choose(idle(3), call(), goes=False).name
    assert [turns.choose(idle(3), call()).name for _ in range(3)].count(told) == 1


def test_prompts_that_nobody_had_go_by_load() -> None:
    by, two = balance("prefix"), [Candidate("a", 3), Candidate("b", 2)]
    assert {by.choose(two, call(prompt=f"{i}" * 3000)).name for i in range(9)} == {"b"}


def test_a_hot_prompt_spills_over_and_no_replica_passes_the_bound() -> None:
    """100 calls of one prompt that stay."""
    by, counts = balance("prefix"), {f"r{i}": 0 for i in range(4)}
    for _ in range(100):
        counts[by.choose([Candidate(n, c) for n, c in counts.items()], call(prompt="hot" * 1000)).name] += 1
        assert max(counts.values()) <= math.ceil(max(SLACK, BOUND * sum(counts.values()) / 4))


def test_a_replica_that_left_has_had_no_prompt() -> None:
    by, prompt = balance("prefix"), call(prompt="p" * 4096)
    by.choose([Candidate("a", 0)], prompt)
    by.forget("a")
    assert by.choose([Candidate("a", 1), Candidate("b", 0)], prompt).reason == "`b` has 0 in flight, `a` 1"


def test_an_affinity_key_goes_before_the_prompt() -> None:
    by = balance("prefix")
    home = by.choose(idle(5), call("ada")).name
    other = next(candidate for candidate in idle(5) if candidate.name != home)
    by.choose([other], call(prompt="p" * 4096))
    assert by.choose(idle(5), call("ada", prompt="p" * 4096)).name == home


@given(keys=st.lists(st.text(), min_size=1, max_size=20), count=st.integers(2, 8), gone=st.integers(0, 7))
def test_only_the_keys_of_a_replica_that_leaves_or_comes_move(keys: list[str], count: int, gone: int) -> None:
    by, all_of = balance("round_robin"), idle(count)
    left = [candidate for candidate in all_of if candidate.name != f"r{gone % count}"]
    for key in filter(None, keys):
        before, after = by.choose(all_of, call(key)).name, by.choose(left, call(key)).name
        assert before == after or before == f"r{gone % count}"


@given(candidates=BUSY, key=st.text(min_size=1, max_size=5))
def test_a_key_never_takes_a_replica_past_its_bound(candidates: list[Candidate], key: str) -> None:
    name = balance("round_robin").choose(candidates, call(key)).name
    if len(candidates) > 1:
        calls = 1 + sum(candidate.outstanding for candidate in candidates)
        fair = calls / sum(candidate.weight for candidate in candidates)
        replica = next(candidate for candidate in candidates if candidate.name == name)
        assert replica.outstanding + 1 <= math.ceil(max(SLACK, BOUND * fair) * replica.weight)


def test_a_hot_key_spills_over_to_one_replica_after_the_other() -> None:
    """100 calls of one key that stay: replicas fill up in the key's own order, none past the bound."""
    by, counts = balance("least_outstanding"), {f"r{i}": 0 for i in range(4)}
    order = []
    for _ in range(100):
        choice = by.choose([Candidate(name, count) for name, count in counts.items()], call("hot"))
        counts[choice.name] += 1
        if choice.name not in order:
            order.append(choice.name)
    assert max(counts.values()) <= math.ceil(BOUND * 100 / 4)
    home = by.choose(idle(4), call("hot")).name
    assert order[0] == home
    full = [Candidate(name, 9 if name == home else 0) for name in counts]
    choice = by.choose(full, call("hot"))
    assert choice.name == order[1]
    assert choice.reason == f"`{home}`, which affinity_key points to, is full: `{order[1]}` is next"
