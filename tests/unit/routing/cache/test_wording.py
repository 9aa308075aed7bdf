"""What may be worded in another way, and what near words do not mean."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from polyroute.core.request import Message, Request, ResponseFormat, Sampling, Tool, ToolCall
from polyroute.routing.cache.wording import MOST_CHARS, agreement, difference, same, wording

ASKED = Request(messages=(Message("system", "Be brief."), Message("user", "Why?")), sampling=Sampling(temperature=0))


def test_the_last_turn_of_the_user_is_what_may_differ() -> None:
    found = wording(ASKED)
    assert found is not None
    assert found.text == "Why?"
    assert found.rest == replace(ASKED, messages=(ASKED.messages[0], Message("user")))  # type: ignore[index]


@pytest.mark.parametrize(
    "request_",
    [
        Request(prompt="Why?"),
        Request(messages=()),
        replace(ASKED, messages=(Message("user", "Why?"), Message("assistant", "Because"))),
        replace(ASKED, messages=(Message("user", ""),)),
        replace(ASKED, messages=(Message("user", "x" * (MOST_CHARS + 1)),)),
        replace(ASKED, messages=(Message("user", "Why?", (ToolCall("1"),)),)),
        replace(ASKED, messages=(Message("tool", "42", tool_call_id="1"),)),
        replace(ASKED, tools=(Tool("weather"),)),
        replace(ASKED, response_format=ResponseFormat("regex", "a+")),
        replace(ASKED, sampling=Sampling(temperature=0, logprobs=1)),
    ],
    ids=str,
)
def test_other_requests_have_no_wording(request_: Request) -> None:
    assert wording(request_) is None


@pytest.mark.parametrize(
    ("one", "other", "why"),
    [
        ("Is A better than B?", "Is B better than A?", "order"),
        ("Convert 10 miles to km", "Convert 12 miles to km", "numbers"),
        ("Can dogs eat grapes?", "Can dogs not eat grapes?", "negation"),
        ("Is it safe?", "Isn\u2019t it safe?", "negation"),
        ("Which drugs can I take with alcohol?", "Which drugs can I take without alcohol?", "negation"),
        ("What is HTTP?", "what is http", ""),
        ("What is the capital of France?", "Tell me the capital city of France", ""),
        ("", "", ""),
    ],
)
def test_differences_that_vectors_do_not_tell(one: str, other: str, why: str) -> None:
    for found in (difference(one, other), difference(other, one)):
        assert (why in found) if why else not found


@given(st.text(), st.text())
def test_any_two_texts_can_be_compared(one: str, other: str) -> None:
    assert 0 <= agreement(one, other) == agreement(other, one) <= 1
    assert agreement(one, one) == 1
    assert same(one, one)
    assert difference(one, one) == ""


def test_answers_agree_by_their_words() -> None:
    assert same("It is Paris.", "it is\n paris.")
    assert not same("It is Paris.", "It is Lyon.")
    assert agreement("It is Paris.", "It is Lyon.") == pytest.approx(2 / 3)
    assert agreement("yes", "no") == 0
