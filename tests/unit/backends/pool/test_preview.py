"""Where a pool would send a call: never to a replica that is ill while one is well, and told without a trace."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from polyroute.backends.echo import EchoBackend
from polyroute.backends.pool.balance import BalanceName
from polyroute.core.backend import ModelState
from polyroute.core.errors import NoReplica
from polyroute.core.request import Request, RoutingOptions
from tests.unit.backends.pool.pools import CALL, World, answered, in_flight, replicas

BALANCES: list[BalanceName] = ["least_outstanding", "round_robin", "prefix"]
PROMPT = replace(CALL, request=Request(model="m", prompt="word " * 1000))


@given(
    states=st.lists(st.sampled_from([ModelState.WARM, ModelState.LOADING, ModelState.FAILED]), min_size=1, max_size=5),
    balance=st.sampled_from(BALANCES),
    key=st.sampled_from(["", "ada", "bob"]),
    prompt=st.sampled_from(["a", "word " * 1000]),
    calls=st.integers(1, 5),
)
def test_no_call_goes_to_a_replica_that_is_ill_while_one_is_well(
    states: list[ModelState], balance: BalanceName, key: str, prompt: str, calls: int
) -> None:
    backends = [EchoBackend("m", replica=f"r{i}", state=state) for i, state in enumerate(states)]
    pool = World().pool(*backends, balance=balance)
    call = replace(CALL, request=Request("m", prompt=prompt, routing=RoutingOptions(affinity_key=key)))
    best = min(states, key=lambda state: state.readiness)
    for _ in range(calls):
        assert states[int(pool.preview(call).replica[1:])] is best


@pytest.mark.parametrize("balance", ["round_robin", "prefix"])
async def test_who_only_asks_changes_nothing(balance: BalanceName) -> None:
    """What is told is what then happens, however often it was asked before."""
    asked, other = World().pool(*replicas(4), balance=balance), World().pool(*replicas(4), balance=balance)
    await answered(asked, PROMPT)
    await answered(other, PROMPT)
    told = {asked.preview(PROMPT).replica for _ in range(3)}
    assert in_flight(asked) == [0, 0, 0, 0]
    assert told == {(await answered(asked, PROMPT)).replica} == {(await answered(other, PROMPT)).replica}
    assert asked.preview(PROMPT).reason


async def test_without_a_replica_that_would_take_it_the_error_says_why() -> None:
    with pytest.raises(NoReplica, match="no replica yet"):
        World().pool().preview(CALL)
