"""What one request brings upon itself ends that request, and not the worker."""

from __future__ import annotations

import queue
from typing import Any, cast

import pytest
import torch

from polyroute.backends.local.answers import Answers
from polyroute.backends.local.messages import Count, Eager, FromWorker, Input, Rejected, Step, Submit
from polyroute.backends.local.worker.constraint import Constraints
from polyroute.backends.local.worker.conversation import Conversation, Prepared
from polyroute.backends.local.worker.engine import Engine
from polyroute.backends.local.worker.forward import fit
from polyroute.backends.local.worker.prompts import PromptReader
from polyroute.core.request import Message, Sampling
from tests import tiny
from tests.recording import Recorder
from tests.stepping import Run, vocabulary

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


def test_what_a_template_says_of_the_prompt_reaches_the_caller_and_no_log() -> None:
    sent: list[FromWorker] = []
    template = "{{ raise_exception(messages[0].content) }}"
    reader = PromptReader(tiny.byte_level_tokenizer(chat_template=template), 64)
    worker = Conversation(
        *(cast("Engine", None), reader, cast("Constraints", None), sent.append),
        *(cast("Any", queue.SimpleQueue()), torch.set_num_threads),
    )
    worker._read(Submit(1, Input(messages=(Message("user", "a secret"),)), Sampling(), ()))
    answers = Answers("m", lambda _busy: None)
    inbox = answers.open(1, lambda _full: None)
    answers.receive(sent[0])
    assert inbox.error is not None
    assert inbox.error.message.endswith("refuses them: a secret")
    assert inbox.error.own_message.endswith("refuses them: (8 characters that are not logged)")


def test_the_router_is_told_once_that_steps_are_no_longer_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("no such thing")

    recorder, sent = Recorder(), list[FromWorker]()
    monkeypatch.setattr(fit, "recorder", lambda _: recorder.record)
    engine = Run(tiny.build("llama", len(vocabulary().tokenizer))).engine
    recorder.fail = fail
    worker = Conversation(
        engine, cast("Any", None), cast("Any", None), sent.append, cast("Any", queue.SimpleQueue()), lambda _: None
    )
    worker._begin(Prepared(Submit(7, Input("hi"), Sampling(max_tokens=9, temperature=0), ()), [5, 6, 7]))
    while engine.busy:
        worker._step()
    told = [message for message in sent if not isinstance(message, Step)]
    assert told == [Eager("RuntimeError: no such thing")]
    assert isinstance(sent[-1], Step)
