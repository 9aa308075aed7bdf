"""Who leaves for another: the idle alone, the least recently used first, and nobody in vain."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from polyroute.backends.local.claims import LEAST_KV_BYTES, Claim, Needs, Standing, place, size, whom_to_evict

claims = st.lists(
    st.builds(
        Claim,
        replica=st.text("abc", min_size=1, max_size=2),
        bytes=st.integers(1, 50),
        standing=st.sampled_from(Standing),
        used_at=st.integers(0, 5).map(float),
    ),
    max_size=7,
)


def claim(name: str, bytes: int, used_at: float, standing: Standing = Standing.IDLE) -> Claim:
    return Claim(name, bytes, standing, used_at)


def test_the_least_recently_used_leaves() -> None:
    assert whom_to_evict([claim("new", 10, 9), claim("old", 10, 1)], 5) == (1,)


def test_a_large_one_makes_smaller_ones_before_it_needless() -> None:
    assert whom_to_evict([claim("small", 1, 1), claim("large", 100, 2)], 50) == (1,)


def test_nobody_leaves_where_that_would_not_be_enough() -> None:
    held = [claim("idle", 10, 1), claim("busy", 100, 0, Standing.BUSY), claim("kept", 100, 0, Standing.WANTED)]
    assert whom_to_evict(held, 11) == ()


@given(claims, st.integers(1, 200))
def test_only_the_idle_leave_and_none_in_vain(held: list[Claim], bytes: int) -> None:
    leaving = whom_to_evict(held, bytes)
    assert all(held[at].standing is Standing.IDLE for at in leaving)
    assert len(set(leaving)) == len(leaving)
    freed = sum(held[at].bytes for at in leaving)
    if leaving:
        assert freed >= bytes
        assert all(freed - held[at].bytes < bytes for at in leaving)
    else:
        assert sum(c.bytes for c in held if c.standing is Standing.IDLE) < bytes


@given(claims, st.integers(1, 200))
def test_nobody_leaves_while_only_ones_used_longer_ago_would_do(held: list[Claim], bytes: int) -> None:
    leaving = whom_to_evict(held, bytes)
    last = max((held[at].used_at for at in leaving), default=0.0)
    before = [c for c in held if c.standing is Standing.IDLE and c.used_at < last]
    assert sum(c.bytes for c in before) < bytes or not leaving


def test_a_replica_needs_room_for_keys_and_values_too() -> None:
    assert Needs(100).least == 100 + LEAST_KV_BYTES
    assert Needs(100, kv_bytes=7).least == 107


def test_replicas_spread_over_the_gpus_by_the_room_that_is_left() -> None:
    room = {"cuda:0": 10, "cuda:1": 30, "cuda:2": 20}
    for _ in range(3):
        room[place("cuda", 3, room.__getitem__)] -= 25
    assert room == {"cuda:0": -15, "cuda:1": 5, "cuda:2": -5}


def test_what_is_named_is_left_as_it_is() -> None:
    for device, gpus in itertools.product(("cpu", "mps", "cuda:1", "auto"), (0, 1, 8)):
        assert place(device, gpus, {}.__getitem__) == device
    assert place("cuda", 1, {}.__getitem__) == "cuda"


def test_sizes_are_read_by_people() -> None:
    assert (size(5 << 20), size(3 << 29)) == ("5 MiB", "1.5 GiB")
