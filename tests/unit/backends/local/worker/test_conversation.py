"""What one request brings upon itself ends that request, and not the worker."""

from __future__ import annotations

import queue
from typing import Any, cast

import torch

from polyroute.backends.local.messages import Count, FromWorker, Input, Rejected, Submit
from polyroute.backends.local.worker.constraint import Constraints
from polyroute.backends.local.worker.conversation import Conversation, Prepared
from polyroute.backends.local.worker.engine import Engine
from polyroute.backends.local.worker.prompts import PromptReader
from polyroute.core.request import Message, Sampling
from tests import tiny

TALK = Input(messages=(Message("user", "hi"),))


def test_a_template_that_fails_ends_the_answer_alone() -> None:
    sent: list[FromWorker] = []
    inbox = cast("Any", queue.SimpleQueue())
    reader = PromptReader(tiny.byte_level_tokenizer(chat_template="{{ 1 // 0 }}"), 64)
    worker = Conversation(
        cast("Engine", None), reader, cast("Constraints", None), sent.append, inbox, torch.set_num_threads
    )
    submit = Submit(7, TALK, Sampling(), ())
    worker._read(submit)
    worker._read(Count(8, TALK))
    why = "it cannot be read (ZeroDivisionError)"
    assert sent == [Rejected(7, "failed", "", why), Rejected(8, "failed", "", why)]
    assert inbox.get_nowait() == Prepared(submit, None)
