"""An answer's inbox joins what its reader has not taken yet."""

from __future__ import annotations

from polyroute.backends.local.inbox import Inbox
from polyroute.backends.local.messages import Finish, Output
from polyroute.core.errors import Draining, WorkerDied
from polyroute.core.event import FinishReason, Token, TokenLogprob


async def test_outputs_that_wait_are_taken_as_one() -> None:
    inbox, entry = Inbox(), TokenLogprob("a", b"a", -1.0)
    inbox.put(Output(1, "one ", (entry,)))
    inbox.put(Output(1, "two", (entry,), Finish(FinishReason.STOP, 1, 2)))
    await inbox.wait()
    assert inbox.take() == Token("one two", logprobs=(entry, entry))
    assert inbox.take() == Token()
    assert inbox.finish == Finish(FinishReason.STOP, 1, 2)


def test_a_complete_answer_does_not_fail_any_more() -> None:
    inbox = Inbox()
    inbox.put(Output(1, "all", finish=Finish(FinishReason.STOP, 1, 1)))
    inbox.fail(WorkerDied("gone"))
    assert inbox.error is None


def test_the_first_error_stays() -> None:
    inbox = Inbox()
    inbox.fail(Draining("leaving"))
    inbox.fail(WorkerDied("gone"))
    assert isinstance(inbox.error, Draining)
