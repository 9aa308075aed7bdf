"""A filter of what is there says no only to what is not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from polyroute.routing.cache.bloom import Bloom


@given(st.sets(st.text()), st.integers(0, 10_000))
def test_every_member_is_found_whatever_it_was_made_for(texts: set[str], members: int) -> None:
    bloom = Bloom(members)
    for text in texts:
        bloom.add(text)
    assert all(text in bloom for text in texts)
    assert bloom.added == len(texts)


def test_few_others_are_mistaken_for_members() -> None:
    bloom = Bloom(20_000)
    for i in range(20_000):
        bloom.add(f"{i:064x}")
    assert not bloom.full
    mistaken = sum(f"{i:064x}" in bloom for i in range(20_000, 40_000))
    assert mistaken < 20_000 / 100


def test_it_takes_two_bytes_a_member_and_never_more_than_some() -> None:
    assert "65536 bytes" in repr(Bloom(30_000))
    assert "4194304 bytes" in repr(Bloom(10**9))


def test_it_says_when_a_larger_one_is_due() -> None:
    bloom = Bloom(0)
    for i in range(10_000):
        bloom.add(str(i))
    assert bloom.full
