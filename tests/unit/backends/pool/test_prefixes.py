"""What is remembered of prompts: which replica had which beginning, and no more than there is room for."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from polyroute.backends.pool.prefixes import BLOCK_CHARS, MAX_BLOCKS, Prefixes, path_of
from polyroute.core.request import Message, Request, Tool, ToolCall

PATHS = st.lists(st.integers(0, 3), min_size=1, max_size=5).map(
    lambda steps: [hash(tuple(steps[: n + 1])) for n in range(len(steps))]
)


def text(request: str) -> list[int]:
    return path_of(Request(prompt=request))


def chat(*messages: Message, tools: tuple[Tool, ...] = ()) -> list[int]:
    return path_of(Request(messages=messages, tools=tools))


def shared(one: Sequence[int], other: Sequence[int]) -> int:
    return sum(a == b for a, b in zip(one, other, strict=False))


def known(prefixes: Prefixes, path: Sequence[int]) -> dict[int, list[str]]:
    return dict(prefixes.holders(path))


@given(st.integers(0, 5000), st.text(max_size=3000), st.text(max_size=3000))
def test_prompts_share_exactly_the_blocks_that_they_begin_with_alike(same: int, one: str, other: str) -> None:
    opening = "o" * same
    a, b = opening + one, opening + other
    alike = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    assert shared(text(a), text(b)) == alike // BLOCK_CHARS


def test_a_path_ends_at_its_cap_and_leaves_out_what_fills_no_block() -> None:
    assert text("x" * (BLOCK_CHARS - 1)) == []
    assert len(text("x" * (2 * BLOCK_CHARS + 1))) == 2
    assert text("x" * BLOCK_CHARS * 3 * MAX_BLOCKS) == text("x" * BLOCK_CHARS * MAX_BLOCKS)
    assert len(text("x" * BLOCK_CHARS * 3 * MAX_BLOCKS)) == MAX_BLOCKS


def test_a_chat_begins_with_its_earlier_turns() -> None:
    first = (Message("system", "s" * 5000), Message("user", "u" * 3000))
    before = chat(*first)
    after = chat(*first, Message("assistant", "a" * 3000), Message("user", "v" * 3000))
    assert len(before) == 7
    assert after[:7] == before
    assert len(after) == 13


def test_who_speaks_and_which_tools_there_are_is_part_of_the_beginning() -> None:
    long = "x" * 2 * BLOCK_CHARS
    said = chat(Message("user", long))
    assert shared(said, chat(Message("system", long))) == 0
    assert shared(said, chat(Message("user", long), tools=(Tool("clock", "tells the time"),))) == 0
    called = (ToolCall(name="clock", arguments=long),)
    assert len(chat(Message("assistant", tool_calls=called), Message("user", long))) == 4


def test_the_longest_beginning_comes_first() -> None:
    prefixes = Prefixes()
    prefixes.give([1, 2, 3], "a")
    prefixes.give([1, 2, 9], "b")
    assert list(prefixes.holders([1, 2, 3, 4])) == [(3, ["a"]), (2, ["a", "b"]), (1, ["a", "b"])]
    assert known(prefixes, [7, 8]) == {}


def test_who_left_and_came_back_has_nothing() -> None:
    prefixes = Prefixes()
    prefixes.give([1, 2], "a")
    prefixes.give([1], "b")
    prefixes.forget("a")
    prefixes.forget("nobody")
    assert known(prefixes, [1, 2]) == {1: ["b"], 2: []}
    prefixes.give([1], "a")
    assert known(prefixes, [1, 2]) == {1: ["b", "a"], 2: []}


def test_the_least_recently_used_end_leaves_first() -> None:
    prefixes = Prefixes(capacity=4)
    prefixes.give([1, 2], "a")
    prefixes.give([3, 4], "a")
    prefixes.give([1, 2], "b")
    prefixes.give([5], "a")
    assert len(prefixes) == 4
    assert known(prefixes, [3, 4]) == {1: ["a"]}
    assert known(prefixes, [1, 2]) == {2: ["a", "b"], 1: ["a", "b"]}


@given(st.lists(st.tuples(PATHS, st.sampled_from("abc")), max_size=40), st.integers(1, 12))
def test_whoever_has_a_prefix_has_all_before_it(gifts: list[tuple[list[int], str]], capacity: int) -> None:
    prefixes = Prefixes(capacity)
    for path, name in gifts:
        prefixes.give(path, name)
        assert len(prefixes) <= capacity
    for path, _ in gifts:
        by_depth = known(prefixes, path)
        for depth, names in by_depth.items():
            assert depth == 1 or set(names) <= set(by_depth[depth - 1])
