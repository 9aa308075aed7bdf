"""What one request brings upon itself ends that request, and not the worker."""

from __future__ import annotations

import queue
from typing import Any, cast

from polyroute.backends.local.messages import Count, FromWorker, Input, Rejected, Submit
from polyroute.backends.local.worker.engine import Engine
from polyroute.backends.local.worker.link import Link
from polyroute.backends.local.worker.prompts import PromptReader
from polyroute.backends.local.worker.serving import Prepared, _Worker
from polyroute.core.request import Message, Sampling
from tests import tiny

TALK = Input(messages=(Message("user", "hi"),))


class Sent(list[FromWorker]):
    """Stands in for the link to the router."""

    def send(self, message: FromWorker) -> None:
        self.append(message)


def test_a_template_that_fails_ends_the_answer_alone() -> None:
    sent, inbox = Sent(), cast("Any", queue.SimpleQueue())
    reader = PromptReader(tiny.byte_level_tokenizer(chat_template="{{ 1 // 0 }}"), 64)
    worker = _Worker(cast("Engine", None), reader, cast("Link", sent), inbox)
    submit = Submit(7, TALK, Sampling(), ())
    worker._read(submit)
    worker._read(Count(8, TALK))
    why = "its prompt cannot be read (ZeroDivisionError)"
    assert sent == [Rejected(7, "failed", "", why), Rejected(8, "failed", "", why)]
    assert inbox.get_nowait() == Prepared(submit, None)
