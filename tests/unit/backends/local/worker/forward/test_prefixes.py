"""The tree of known prefixes finds the longest, keeps contents when it splits, and forgets the oldest ends first."""

from __future__ import annotations

import random

import pytest
import torch

from polyroute.backends.local.worker.forward.prefixes import Prefixes, Segment


def segment(tokens: list[int], start: int = 0) -> Segment:
    """Two layers of keys [2, 3, n] and values [2, n, 3] that tell their token and its place."""
    marks = torch.tensor([1000.0 * (start + i) + token for i, token in enumerate(tokens)])
    return Segment(
        [marks.expand(2, 3, -1) + layer for layer in (0, 0.5)],
        [marks[:, None].expand(2, -1, 3) + layer for layer in (0, 0.5)],
    )


def insert(prefixes: Prefixes, tokens: list[int]) -> None:
    known = prefixes.known(tokens)
    prefixes.insert(tokens, segment(tokens[known:], known))


def check(prefixes: Prefixes, tokens: list[int], known: int) -> None:
    """That `known` tokens are found, in whole pieces in a row, each with its own contents."""
    done = 0
    for start, found, count in prefixes.match(tokens):
        assert start == done
        right = segment(tokens[start : start + count], start)
        for ours, wanted in zip(found.keys, right.keys, strict=True):
            assert torch.equal(ours[:, :, :count], wanted)
        for ours, wanted in zip(found.values, right.values, strict=True):
            assert torch.equal(ours[:, :count], wanted)
        done += count
    assert done == known == prefixes.known(tokens)


def test_nothing_is_known_at_first() -> None:
    prefixes = Prefixes()
    check(prefixes, [1, 2, 3], 0)
    assert prefixes.tokens == 0
    assert not prefixes.evict()


@pytest.mark.parametrize(
    ("asked", "known"),
    [([1, 2, 3, 4], 4), ([1, 2, 3, 4, 5], 4), ([1, 2], 2), ([1, 2, 9], 2), ([9, 1, 2], 0), ([], 0)],
)
def test_the_longest_known_beginning_is_found(asked: list[int], known: int) -> None:
    prefixes = Prefixes()
    insert(prefixes, [1, 2, 3, 4])
    check(prefixes, asked, known)


def test_a_branch_splits_what_both_share_and_keeps_the_contents_of_each() -> None:
    prefixes = Prefixes()
    whole, other, third = [1, 2, 3, 4, 5, 6], [1, 2, 3, 7, 8], [1, 2, 9]
    for tokens in (whole, other, third):
        insert(prefixes, tokens)
    assert prefixes.tokens == 6 + 2 + 1
    for tokens in (whole, other, third):
        check(prefixes, [*tokens, 99], len(tokens))
    check(prefixes, [1, 2, 3, 7, 9], 4)


def test_what_is_split_holds_on_to_no_more_than_its_own_part() -> None:
    prefixes = Prefixes()
    insert(prefixes, [1, 2, 3, 4, 5, 6])
    insert(prefixes, [1, 2, 3, 9])
    for node in prefixes._nodes():
        for tensor in (*node.segment.keys, *node.segment.values):
            if node.tokens != (9,):  # its tensors are the test's own
                assert tensor.untyped_storage().nbytes() == tensor.nbytes == 4 * 6 * len(node.tokens)


def test_a_split_leads_to_no_child_of_the_part_that_is_cut_off() -> None:
    prefixes = Prefixes()
    insert(prefixes, [1, 2, 3])
    insert(prefixes, [1, 2, 3, 4, 5])
    insert(prefixes, [1, 2, 4, 5])  # 4 is also how what follows on 3 begins
    check(prefixes, [1, 2, 3, 4, 5], 5)
    check(prefixes, [1, 2, 4, 5], 4)
    check(prefixes, [1, 2, 4, 5, 6], 4)


def test_inserting_what_is_known_adds_nothing() -> None:
    prefixes = Prefixes()
    insert(prefixes, [1, 2, 3, 4])
    insert(prefixes, [1, 2, 3, 4])
    insert(prefixes, [1, 2])
    assert prefixes.tokens == 4
    check(prefixes, [1, 2, 3, 4], 4)


def test_the_end_that_was_unused_for_longest_goes_first() -> None:
    prefixes = Prefixes()
    insert(prefixes, [1, 1, 1])
    insert(prefixes, [2, 2, 2])
    insert(prefixes, [1, 1, 5, 5])
    prefixes.match([2, 2, 2])
    order = []
    for _ in range(4):
        before = prefixes.tokens
        assert prefixes.evict()
        order.append(before - prefixes.tokens)
    assert order == [1, 2, 2, 3]  # the end of 111, that of 1155, 11 once nothing builds upon it, and 222
    assert not prefixes.evict()
    assert prefixes.tokens == 0


def test_a_look_makes_a_prefix_young_again() -> None:
    prefixes = Prefixes()
    insert(prefixes, [1, 1, 1])
    insert(prefixes, [2, 2, 2])
    prefixes.known([1, 1, 1, 4])
    prefixes.evict()
    check(prefixes, [1, 1, 1], 3)
    check(prefixes, [2, 2, 2], 0)


def test_any_order_of_inserts_and_evictions_keeps_tree_and_contents_right() -> None:
    chance = random.Random(0)
    prefixes = Prefixes()
    for _ in range(400):
        tokens = [chance.randrange(3) for _ in range(chance.randrange(1, 12))]
        insert(prefixes, tokens)
        check(prefixes, tokens, len(tokens))
        while prefixes.tokens > 60:
            assert prefixes.evict()
        assert prefixes.tokens == sum(len(node.tokens) for node in prefixes._nodes())
        probe = [chance.randrange(3) for _ in range(8)]
        check(prefixes, probe, prefixes.known(probe))
