"""The fair queue: in order within a caller, in turn between callers, whatever leaves from where."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyroute.routing.fair_queue import FairQueue

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.sampled_from("abcde")),
        st.tuples(st.sampled_from(["pop", "drop"]), st.none()),
        st.tuples(st.just("remove"), st.integers(0, 30)),
    ),
    max_size=80,
)


class Plain:
    """The same queue as its words say it: a list of callers in turn, each with a list of items."""

    def __init__(self) -> None:
        self.turns: deque[tuple[str, list[int]]] = deque()

    def of(self, caller: str) -> list[int]:
        return next((items for name, items in self.turns if name == caller), [])

    def push(self, caller: str, item: int) -> None:
        items = self.of(caller)
        if not items:
            self.turns.append((caller, items))
        items.append(item)

    def pop(self) -> int:
        caller, items = self.turns.popleft()
        if len(items) > 1:
            self.turns.append((caller, items))
        return items.pop(0)

    def remove(self, item: int) -> None:
        for turn in list(self.turns):
            if item in turn[1]:
                turn[1].remove(item)
                if not turn[1]:
                    self.turns.remove(turn)

    @property
    def lengths(self) -> list[int]:
        return [len(items) for _, items in self.turns]


@given(STEPS)
def test_it_does_what_its_words_say(steps: list[tuple[str, object]]) -> None:
    queue: FairQueue[int] = FairQueue()
    plain, owners = Plain(), []
    for step, operand in steps:
        if step == "push":
            caller = str(operand)
            queue.push(caller, len(owners))
            plain.push(caller, len(owners))
            owners.append(caller)
        elif step == "remove" and isinstance(operand, int) and operand < len(owners):
            queue.remove(owners[operand], operand)
            plain.remove(operand)
        elif step == "pop" and len(queue):
            assert queue.pop() == plain.pop()
        elif step == "drop" and len(queue):
            dropped = queue.drop()
            items = plain.of(owners[dropped])
            assert (len(items), items[-1]) == (max(plain.lengths), dropped)
            plain.remove(dropped)
        assert len(queue) == sum(plain.lengths)
        assert queue.callers == len(plain.turns)
        assert queue.longest == max(plain.lengths, default=0)
        assert [queue.of(caller) for caller in "abcde"] == [len(plain.of(caller)) for caller in "abcde"]


@given(st.text("abc", max_size=30), st.sampled_from("abcd"))
def test_how_many_go_before_the_next_is_known_to_a_round(callers: str, newcomer: str) -> None:
    queue: FairQueue[int] = FairQueue()
    for item, caller in enumerate(callers):
        queue.push(caller, item)
    said, others = queue.ahead(newcomer), queue.callers - bool(queue.of(newcomer))
    queue.push(newcomer, -1)
    before = 0
    while queue.pop() != -1:
        before += 1
    assert said <= before <= said + (others if newcomer in callers else 0)


def test_nothing_is_kept_of_callers_that_left() -> None:
    queue: FairQueue[int] = FairQueue()
    for item in range(1000):
        queue.push(f"caller {item}", item)
        queue.push(f"caller {item}", -item - 1)
    assert (len(queue), queue.callers, queue.longest) == (2000, 1000, 2)
    for item in range(1000):
        queue.remove(f"caller {item}", item)
        queue.remove(f"caller {item}", item)
        queue.remove("nobody", item)
    while queue:
        queue.pop()
    assert repr(queue) == "<FairQueue 0 of 0 callers, most 0>"
    assert not queue._items
    assert not queue._callers


def test_an_empty_queue_has_nothing_to_give() -> None:
    queue: FairQueue[int] = FairQueue()
    with pytest.raises(StopIteration):
        queue.pop()
    with pytest.raises(KeyError):
        queue.drop()
