"""Text of tokens as they come, in every script, equals the text of all tokens at once."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyroute.backends.local.worker.detokenize import Vocabulary
from tests import tiny

TOKENIZERS = {
    "byte level": tiny.byte_level_tokenizer,
    "byte fallback": tiny.byte_fallback_tokenizer,
    "word piece": tiny.word_piece_tokenizer,
}


@cache
def vocabulary(kind: str) -> Vocabulary:
    return Vocabulary(TOKENIZERS[kind]())


def whole(tokenizer: Any, tokens: list[int]) -> str:
    return str(tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def pieces(kind: str, tokens: list[int], context: list[int] | None = None) -> list[str]:
    stream = vocabulary(kind).stream(context or [])
    return [*(stream.add(token) for token in tokens), stream.flush()]


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("text", tiny.CORPUS)
def test_pieces_concatenate_to_the_whole_text_and_break_no_character(kind: str, text: str) -> None:
    tokenizer = vocabulary(kind).tokenizer
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    parts = pieces(kind, tokens)
    assert "".join(parts) == whole(tokenizer, tokens)
    assert not any("\N{REPLACEMENT CHARACTER}" in part for part in parts)
    if kind != "word piece":
        assert "".join(parts) == text


@pytest.mark.parametrize("kind", TOKENIZERS)
@settings(max_examples=300, deadline=None)
@given(picks=st.data())
def test_any_tokens_at_all_give_the_whole_text(kind: str, picks: st.DataObject) -> None:
    tokenizer = vocabulary(kind).tokenizer
    ids = st.integers(0, len(tokenizer) - 1)
    if kind == "byte fallback":  # runs of bytes are what is hard there
        ids = st.one_of(ids, st.integers(3, 258))
    tokens = picks.draw(st.lists(ids, max_size=40))
    assert "".join(pieces(kind, tokens)) == whole(tokenizer, tokens)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30))
def test_any_text_comes_back_from_byte_level_tokens(text: str) -> None:
    tokens = vocabulary("byte level").tokenizer(text, add_special_tokens=False)["input_ids"]
    assert "".join(pieces("byte level", tokens)) == text


def test_a_character_in_bytes_appears_at_once_when_it_is_complete() -> None:
    tokenizer = vocabulary("byte level").tokenizer
    tokens = tokenizer("\N{MATHEMATICAL SCRIPT CAPITAL A}", add_special_tokens=False)["input_ids"]
    assert len(tokens) > 1
    *before, last, flushed = pieces("byte level", tokens)
    assert (set(before), last, flushed) == ({""}, "\N{MATHEMATICAL SCRIPT CAPITAL A}", "")


@pytest.mark.parametrize("kind", ["byte level", "byte fallback"])
def test_an_incomplete_character_at_the_end_is_replaced(kind: str) -> None:
    tokenizer = vocabulary(kind).tokenizer
    tokens = tokenizer("\N{MATHEMATICAL SCRIPT CAPITAL A}", add_special_tokens=False)["input_ids"][:-1]
    text = "".join(pieces(kind, tokens))
    assert text == whole(tokenizer, tokens)
    assert text.endswith("\N{REPLACEMENT CHARACTER}")


def test_a_continuation_keeps_the_space_before_its_first_word() -> None:
    tokenizer = vocabulary("byte fallback").tokenizer
    prompt = tokenizer("the capital of", add_special_tokens=False)["input_ids"]
    answer = tokenizer("France", add_special_tokens=False)["input_ids"]
    assert "".join(pieces("byte fallback", answer, prompt)) == " France"
    assert "".join(pieces("byte fallback", answer)) == "France"


def test_the_cost_of_a_token_does_not_grow_with_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts the tokens that are decoded, not the time."""
    known = vocabulary("byte fallback")
    decoded: list[int] = []
    original = Vocabulary.decode

    def counting(self: Vocabulary, tokens: list[int]) -> str:
        decoded.append(len(tokens))
        return original(self, tokens)

    monkeypatch.setattr(Vocabulary, "decode", counting)
    tokens = known.tokenizer("the quick brown fox " * 50, add_special_tokens=False)["input_ids"]
    pieces("byte fallback", tokens)
    assert max(decoded) < 10
    assert len(decoded) <= 2 * len(tokens) + 1


def test_special_tokens_add_no_text_and_unknown_ids_neither() -> None:
    assert pieces("byte level", [0, 1, 10**6]) == ["", "", "", ""]
