"""A line can always be written, on one line, whatever it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyroute.server.logs.lines import json_line, text_line

LINE: dict[str, Any] = {"event": "it.happened", "level": "info", "timestamp": 1_800_000_000.25}


def test_json_begins_with_when_how_bad_and_what() -> None:
    text = json_line({"count": 1, "wait_s": 0.125, **LINE, "template": "it"})
    assert text == (
        '{"timestamp":"2027-01-15T08:00:00.250000Z","level":"info","event":"it.happened","count":1,"wait_s":0.125}\n'
    )


@pytest.mark.parametrize("value", [Path("/x"), float("nan"), {1: 2}, "\ud800", 2**70, object(), b"x", ("a", 1)])
def test_what_json_has_no_word_for_is_written_all_the_same(value: object) -> None:
    assert json.loads(json_line({**LINE, "value": value}))["event"] == "it.happened"


@given(st.dictionaries(st.text(), st.one_of(st.text(), st.floats(), st.integers(), st.none(), st.lists(st.text()))))
def test_a_line_is_one_line(fields: dict[str, Any]) -> None:
    text = json_line({**fields, **LINE})
    assert text.endswith("\n")
    assert len(text.splitlines()) == 1 or "\n" not in text[:-1]
    assert "\n" not in text[:-1]


def test_for_people_what_is_empty_is_left_out_and_times_are_short() -> None:
    text = text_line(colors=False)({**LINE, "variant": "", "cached": 0, "attempts": [], "wait_s": 0.12345})
    assert "it.happened" in text
    assert "wait_s=0.123" in text
    assert "variant" not in text
    assert "attempts" not in text


def test_for_people_nobody_can_forge_a_line() -> None:
    forged = "a\n10:00:00 [error    ] b \x1b[31m"
    text = text_line(colors=False)({**LINE, "event": forged, "requested": forged})
    assert text.count("\n") == 1
    assert "\x1b" not in text
