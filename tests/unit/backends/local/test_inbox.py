"""An answer's inbox joins what its reader has not taken yet."""

from __future__ import annotations

from polyroute.backends.local.inbox import MOST_BYTES, Inbox
from polyroute.backends.local.messages import Finish, Output
from polyroute.core.errors import Draining, WorkerDied
from polyroute.core.event import FinishReason, Token, TokenLogprob, TopLogprob


def never(_: bool) -> None:
    raise AssertionError("the answer is not to be held")


async def test_outputs_that_wait_are_taken_as_one() -> None:
    inbox, entry = Inbox(never), TokenLogprob("a", b"a", -1.0)
    inbox.put(Output(1, "one ", (entry,)))
    inbox.put(Output(1, "two", (entry,), Finish(FinishReason.STOP, 1, 2)))
    await inbox.wait()
    assert inbox.take() == Token("one two", logprobs=(entry, entry))
    assert inbox.take() == Token()
    assert inbox.finish == Finish(FinishReason.STOP, 1, 2)


def test_a_token_tells_whether_the_end_has_come_with_it() -> None:
    inbox = Inbox(never)
    inbox.put(Output(1, "one "))
    assert not inbox.take().last
    inbox.put(Output(1, "two", finish=Finish(FinishReason.STOP, 1, 2)))
    assert inbox.take().last


def test_a_complete_answer_does_not_fail_any_more() -> None:
    inbox = Inbox(never)
    inbox.put(Output(1, "all", finish=Finish(FinishReason.STOP, 1, 1)))
    inbox.fail(WorkerDied("gone"))
    assert inbox.error is None


def test_the_first_error_stays() -> None:
    inbox = Inbox(never)
    inbox.fail(Draining("leaving"))
    inbox.fail(WorkerDied("gone"))
    assert isinstance(inbox.error, Draining)


def test_an_answer_is_held_while_too_much_of_it_waits() -> None:
    said: list[bool] = []
    inbox = Inbox(said.append, most_outputs=3)
    for text in "abcde":
        inbox.put(Output(1, text))
    assert (said, inbox.held) == ([True], True)
    assert inbox.take().text == "abcde"  # nothing that came after the pause is lost
    assert (said, inbox.held, inbox.unread_bytes) == ([True, False], False, 0)
    inbox.take()
    assert said == [True, False]


def test_large_outputs_hold_an_answer_sooner() -> None:
    said: list[bool] = []
    entry = TokenLogprob("a", b"a", -1.0, (TopLogprob("b", b"b", -2.0),) * 20)
    inbox = Inbox(said.append)
    count = 0
    while not said:
        inbox.put(Output(1, "a", (entry,)))
        count += 1
    assert count < 40
    inbox.take()
    inbox.put(Output(1, "x" * MOST_BYTES))
    assert said == [True, False, True]


def test_an_answer_that_is_complete_needs_no_hold() -> None:
    Inbox(never, most_outputs=1).put(Output(1, "all", finish=Finish(FinishReason.STOP, 1, 1)))
