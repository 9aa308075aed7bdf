"""How an answer ends, and what of it is shown."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from tokenizers import AddedToken

from polyroute.backends.local.messages import Output, Rejected
from polyroute.backends.local.worker.detokenize import Vocabulary
from polyroute.backends.local.worker.logprobs import Chosen
from polyroute.backends.local.worker.sampling import Sampler, SamplingDefaults
from polyroute.backends.local.worker.sequence import Sequence
from polyroute.core.event import FinishReason
from polyroute.core.request import Sampling
from tests import tiny

TOKENIZERS = {"byte level": tiny.byte_level_tokenizer, "byte fallback": tiny.byte_fallback_tokenizer}


@cache
def tokenizer(kind: str) -> Any:
    made = TOKENIZERS[kind]()
    made.add_tokens([AddedToken("<|im_end|>", special=True), AddedToken("<plain>", special=False)])
    return made


def sequence(kind: str = "byte level", **options: Any) -> Sequence:
    sampler = Sampler(Sampling(temperature=0), SamplingDefaults(), [])
    options = {"max_tokens": 100, "eos": frozenset({1})} | options
    return Sequence(7, [10, 11, 12], sampler, Vocabulary(tokenizer(kind)), **options)


def said(answer: Sequence, text: str, kind: str = "byte level", **entry: Any) -> list[Output]:
    """What each token of `text` adds to the answer, until it ends."""
    outputs: list[Output] = []
    for token in tokenizer(kind)(text, add_special_tokens=False)["input_ids"]:
        output = answer.accept(token, **entry)
        assert isinstance(output, Output)
        outputs.append(output)
        if output.finish is not None:
            break
    return outputs


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("stop", ["<|im_end|>", "<plain>"])
def test_a_stop_string_that_is_one_added_token_ends_the_answer(kind: str, stop: str) -> None:
    """Though the first of them never shows in the text."""
    answer = sequence(kind, stop=("never", stop), logprobs=0)
    outputs = said(answer, f"The fox{stop} jumps", kind, entry=Chosen(-0.5))
    finish = outputs[-1].finish
    assert finish is not None
    assert (finish.reason, finish.matched_stop) == (FinishReason.STOP_SEQUENCE, stop)
    assert "".join(output.text for output in outputs) == "The fox"
    assert b"".join(entry.token_bytes for output in outputs for entry in output.logprobs).strip() == b"The fox"


def test_what_was_held_back_for_another_stop_string_is_shown_when_a_stop_token_comes() -> None:
    answer = sequence(stop=("jumpers", "<|im_end|>"))
    assert "".join(output.text for output in said(answer, "fox jump<|im_end|>")) == "fox jump"


def test_a_stop_token_that_ends_answers_anyway_is_told_as_the_stop_string() -> None:
    end = tokenizer("byte level").convert_tokens_to_ids("<|im_end|>")
    for stop, reason in (((), FinishReason.STOP), (("<|im_end|>",), FinishReason.STOP_SEQUENCE)):
        finish = said(sequence(stop=stop, eos=frozenset({1, end})), "fox<|im_end|>")[-1].finish
        assert finish is not None
        assert finish.reason is reason


@pytest.mark.parametrize("end", [1, 5])
def test_any_of_several_end_tokens_ends_the_answer(end: int) -> None:
    answer = sequence(eos=frozenset({1, 5}))
    said(answer, "fox")
    output = answer.accept(end)
    assert isinstance(output, Output)
    assert output.finish is not None
    assert output.finish.reason is FinishReason.STOP
    assert not output.text


def test_a_preempted_answer_reads_all_of_its_tokens_again() -> None:
    answer = sequence()
    answer.processed = 3
    assert (answer.length, answer.remaining) == (3, 0)
    said(answer, "The fox")
    more = answer.generated
    answer.processed = answer.length - 1
    assert (answer.remaining, answer.tokens(answer.processed, answer.length)) == (1, more[-1:])
    answer.processed = 0
    assert answer.remaining == answer.length == 3 + len(more)
    assert answer.tokens(0, 2) == [10, 11]
    assert answer.tokens(2, 4) == [12, more[0]]
    assert answer.tokens(0, answer.length) == [10, 11, 12, *more]


def test_no_token_is_a_failure_of_this_answer() -> None:
    rejected = sequence().accept(-1)
    assert isinstance(rejected, Rejected)
    assert (rejected.id, rejected.kind) == (7, "failed")
