"""What others wrote is shown, and steers nothing."""

from __future__ import annotations

import io
import json
import math
from datetime import UTC, datetime

import pytest

from polyroute.client import CacheResult, Route, TokenLogprob
from polyroute.client.cli.printing import Printer, jsonable, plain, print_json


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mb\x1b[0mc", "abc"),
        ("\x9b31ma", "a"),
        ("a\x07\x08\x00b\rc", "abc"),
        ("line\n\ttab", "line\n\ttab"),
        ("\x1b]0;title\x07x", "]0;titlex"),
        ("héllo 🦊\u200d🔥 世界", "héllo 🦊\u200d🔥 世界"),
    ],
)
def test_sequences_and_controls_are_left_out(text: str, shown: str) -> None:
    assert plain(text) == shown


@pytest.mark.parametrize("text", ["a\x1b[2Jb\x1b[1;31mc\n", "x\x9b2Jy", "\x1b\x1b[31mz"])
def test_it_does_not_matter_how_the_text_is_cut(text: str) -> None:
    whole = plain(text)
    for cut in range(len(text) + 1):
        screen = Screen()
        printer = Printer(screen)
        printer.write(text[:cut])
        printer.write(text[cut:])
        assert screen.getvalue() == whole, cut


def test_a_long_beginning_is_not_held_back_for_ever() -> None:
    screen = Screen()
    printer = Printer(screen)
    for _ in range(100):
        printer.write("\x1b[111111111")
    printer.write("\nend")
    printer.end()
    assert screen.getvalue().endswith("\nend\n")


@pytest.mark.parametrize(("text", "printed"), [("a", "a\n"), ("a\n", "a\n"), ("", "")])
def test_the_last_line_is_ended_once(text: str, printed: str) -> None:
    out = io.StringIO()
    printer = Printer(out)
    printer.write(text)
    printer.end()
    printer.end()
    assert out.getvalue() == printed


def test_a_pipe_gets_the_text_as_it_is() -> None:
    out = io.StringIO()
    Printer(out).write("\x1b[31m\x00")
    assert out.getvalue() == "\x1b[31m\x00"


def test_values_become_json() -> None:
    assert jsonable(TokenLogprob("a", b"\xff", -math.inf)) == {
        "token": "a",
        "token_bytes": "/w==",
        "logprob": None,
        "top": [],
    }
    assert jsonable(datetime(2030, 1, 1, tzinfo=UTC)) == "2030-01-01T00:00:00+00:00"


def test_json_holds_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    print_json(Route(requested="\x1b\x9b\x7f世", cache=CacheResult.HIT))
    printed = capsys.readouterr().out
    assert not set(printed) & {"\x1b", "\x9b", "\x7f"}
    assert json.loads(printed)["requested"] == "\x1b\x9b\x7f世"
    assert json.loads(printed)["cache"] == "hit"
