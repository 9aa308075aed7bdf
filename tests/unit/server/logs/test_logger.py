"""A logger puts what is logged as it is, from its level on, with tracebacks as text."""

from __future__ import annotations

import logging
import sys
from typing import Any

import pytest

from polyroute.server.logs.lines import Line
from polyroute.server.logs.logger import Foreign, logger_class


def logger(lines: list[Line], least: str = "info") -> Any:
    return logger_class(lines.append, least)(None, [], {})


def test_a_line_has_its_fields_its_level_and_its_time() -> None:
    lines: list[Line] = []
    logger(lines).warning("peer.lost", peer="a")
    (line,) = lines
    assert line.pop("timestamp") > 0
    assert line == {"event": "peer.lost", "level": "warning", "peer": "a"}


@pytest.mark.parametrize(
    ("least", "told"),
    [("debug", ["debug", "info", "warning", "error"]), ("warning", ["warning", "error"]), ("error", ["error"])],
)
def test_lines_below_the_level_are_ignored(least: str, told: list[str]) -> None:
    lines: list[Line] = []
    log = logger(lines, least)
    for level in ("debug", "info", "warning", "error"):
        getattr(log, level)("x")
    assert [line["level"] for line in lines] == told


@pytest.mark.parametrize("how", ["exception", "flag", "error", "tuple"])
def test_a_traceback_is_text(how: str) -> None:
    lines: list[Line] = []
    log = logger(lines)
    try:
        raise KeyError("lost")
    except KeyError as error:
        if how == "exception":
            log.exception("it.crashed")
        else:
            log.error("it.crashed", exc_info={"flag": True, "error": error, "tuple": sys.exc_info()}[how])
    (line,) = lines
    assert line["level"] == "error"
    assert line["exception"].endswith("KeyError: 'lost'")
    assert "exc_info" not in line


def test_lines_of_the_standard_library_are_known_by_their_template() -> None:
    lines: list[Line] = []
    record = logging.LogRecord("x.y", logging.WARNING, "", 0, "retrying in %d s", (2,), None)
    Foreign(lines.append).emit(record)
    (line,) = lines
    assert (line["event"], line["template"], line["logger"]) == ("retrying in 2 s", "retrying in %d s", "x.y")


def test_a_library_that_logs_what_does_not_fit_is_told_and_not_harmed() -> None:
    lines: list[Line] = []
    Foreign(lines.append).emit(logging.LogRecord("x", logging.WARNING, "", 0, "%s of %d", ("a",), None))
    assert [line["event"] for line in lines] == ["%s of %d"]
