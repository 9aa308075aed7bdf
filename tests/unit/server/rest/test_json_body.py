"""JSON is read strictly, and whatever is wrong has a place."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyroute.core.errors import InvalidArgument
from polyroute.server.rest.bodies import BatchBody, GenerateBody
from polyroute.server.rest.json_body import parse_body, parse_json


@given(
    st.recursive(
        st.none() | st.booleans() | st.text() | st.integers(-(2**53), 2**53), lambda x: st.lists(x, max_size=4)
    )
)
def test_json_is_read_as_it_is(value: Any) -> None:
    assert parse_json(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        (b'{"a": {"b": [1, NaN]}}', "a.b[1]"),
        (b'{"a": {"b": 1, "b": 1}}', "b"),
        (b'[{"a": "\\udfff"}]', "[0].a"),
        (b'{"\\ud800": 1}', "\\ud800"),
        (b"[" * 65 + b"]" * 65, "[0]" * 64),
        (b"{", ""),
        (b"", ""),
        (b" \n", ""),
        (b"\xef\xbb\xbf{}", ""),
    ],
)
def test_what_json_has_not_is_refused_with_its_place(raw: bytes, field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse_json(raw)
    assert refused.value.field == field


def test_a_surrogate_pair_is_one_character() -> None:
    assert parse_json(b'"\\ud83d\\ude00"') == "\U0001f600"


def test_sixty_four_levels_are_allowed() -> None:
    parse_json(b"[" * 64 + b"]" * 64)


def test_a_long_list_is_refused_before_its_items_are_looked_at() -> None:
    with pytest.raises(InvalidArgument, match=r"^prompts: 3 prompts, limit 2$"):
        parse_body(b'{"prompts": [1, 2, 3]}', BatchBody, {"prompts": 2})


def test_an_unknown_key_that_looks_like_nothing_gets_no_guess() -> None:
    with pytest.raises(InvalidArgument, match=r"^zzz: is no field of this request$"):
        parse_body(b'{"prompt": "x", "zzz": 1}', GenerateBody)


def test_a_long_or_strange_key_is_shown_cut_and_escaped() -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse_body(b'{"prompt": "x", "a\\n' + b"y" * 5000 + b'": 1}', GenerateBody)
    assert refused.value.field.startswith("a\\nyyy")
    assert len(refused.value.field) < 300
