"""Log lines go to one stream, as JSON or readable; a crash never prints the prompts that its frames hold."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SCRIPT = """
import io, logging, sys
import structlog
from polyroute.server import logs

class Screen(io.StringIO):
    def isatty(self):
        return {tty}

out = Screen()
writer = logs.set_up(stream=out)

def crash(prompt):
    held = {{"prompt": prompt}}
    raise KeyError("lost")

secret = "".join(reversed("eerht owt eno"))  # so that no line of this source shows it
for log in (structlog.get_logger("ours"), logging.getLogger("theirs")):
    try:
        crash(secret)
    except KeyError as error:
        log.error("it.crashed", exc_info=error)
structlog.get_logger("ours").info("fine.done", count=3)
logging.getLogger("theirs").warning("careful")
writer.close()
sys.stdout.write(out.getvalue())
"""


def logged(tty: bool) -> str:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(tty=tty)], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout


@pytest.mark.parametrize("tty", [True, False])
def test_a_traceback_shows_code_and_no_values(tty: bool) -> None:
    text = logged(tty)
    assert text.count("KeyError") >= 2
    assert "in crash" in text
    assert "one two three" not in text


def test_elsewhere_than_in_a_terminal_every_line_is_json() -> None:
    lines = [json.loads(line) for line in logged(False).splitlines()]
    assert [line["event"] for line in lines] == ["it.crashed", "it.crashed", "fine.done", "careful"]
    assert [line["level"] for line in lines] == ["error", "error", "info", "warning"]
    assert lines[2]["count"] == 3
    assert all("timestamp" in line for line in lines)


def test_in_a_terminal_a_line_has_no_empty_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sys.modules[__name__], "SCRIPT", SCRIPT.replace("count=3", "count=3, variant='', queue_s=4e-06")
    )
    (line,) = [line for line in logged(True).splitlines() if "fine.done" in line]
    assert "count" in line
    assert "variant" not in line
    assert "4e-06" not in line
