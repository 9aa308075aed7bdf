"""A stored chat answer that is given again is written as any other, whatever was written of it before."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace

from polyroute.core.event import Route, Started, Token, TokenLogprob, Whole
from polyroute.core.request import ToolCall
from polyroute.server.answers import whole_answer
from polyroute.server.rest.chat_answer import chat_answer, chat_answer_again
from tests.unit.server.wire.test_again import OTHERS, ROUTE
from tests.unit.server.wire.test_answer import FINISHED

LOGPROB = TokenLogprob("Hal", b"Hal", -0.5)


def whole(route: Route, forms: Any) -> Whole:
    tokens = (Token("Hal", logprobs=(LOGPROB,)), Token("lo"), Token(tool_calls=(ToolCall("c", "f", "{}"),)))
    return Whole(Started(route), tokens, FINISHED, forms)


def read(raw: bytes) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(raw)
    assert told.pop("created") > 0
    return told


@pytest.mark.parametrize(("name", "other"), OTHERS)
@pytest.mark.parametrize("with_logprobs", [False, True])
def test_every_field_of_a_route_is_this_times(name: str, other: Route, with_logprobs: bool) -> None:
    forms: dict[tuple[str, ...], tuple[bytes, ...]] = {}
    for given in (ROUTE, other, ROUTE):
        answer = whole(given, forms)
        plainly = read(chat_answer(whole_answer(answer), "id", with_logprobs))
        assert read(chat_answer_again(answer, "id", with_logprobs)) == plainly, name


def test_log_probabilities_are_there_for_who_asked_for_them() -> None:
    forms: dict[tuple[str, ...], tuple[bytes, ...]] = {}
    for asked in (False, True, False, True):
        (choice,) = read(chat_answer_again(whole(ROUTE, forms), "id", asked))["choices"]
        assert (choice["logprobs"] is not None) is asked


def test_an_id_may_have_quotation_marks() -> None:
    name = 'chatcmpl-"\\{}%s'
    for forms in (None, {}):
        assert read(chat_answer_again(whole(ROUTE, forms), name, False))["id"] == name


def test_one_form_is_kept_of_what_is_the_same_each_time() -> None:
    forms: dict[tuple[str, ...], tuple[bytes, ...]] = {}
    for age in range(10):
        answer = whole(replace(ROUTE, trace_id=f"{age}", cache_age_s=float(age)), forms)
        assert read(chat_answer_again(answer, str(age), False))["id"] == str(age)
    assert len(forms) == 1
