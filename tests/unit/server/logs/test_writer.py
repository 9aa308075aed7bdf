"""Lines are written in their order by a thread, soon and all of them; one that cannot be is told of."""

from __future__ import annotations

import io
import threading
from typing import Any

import pytest

from polyroute.server.logs.lines import Line
from polyroute.server.logs.repeats import Repeats
from polyroute.server.logs.writer import LogWriter

WAIT_S = 60.0


def line(event: str, level: str = "info", **fields: Any) -> Line:
    return {"event": event, "level": level, "timestamp": 0.0, **fields}


def shown(line: Line) -> str:
    return f"{line['event']}{line.get('lines', '')}{line.get('of', '')}{line.get('left_out', '')}\n"


class Pipe(io.StringIO):
    """Takes nothing until it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = threading.Event()
        self.asked = threading.Event()
        self.broken = False

    def write(self, text: str) -> int:
        self.asked.set()
        assert self.opened.wait(WAIT_S)
        if self.broken:
            raise BrokenPipeError
        return super().write(text)


def test_everything_that_was_put_is_written_when_it_is_closed() -> None:
    out = io.StringIO()
    writer = LogWriter(out, shown, Repeats(), gather_s=3600)  # only its end wakes it
    for i in range(2000):
        writer.put(line(f"e{i}"))
    writer.close(WAIT_S)
    assert out.getvalue().splitlines() == [f"e{i}" for i in range(2000)]
    writer.close(WAIT_S)


def test_lines_come_without_its_being_closed() -> None:
    out = Pipe()
    out.opened.set()
    writer = LogWriter(out, shown, Repeats(), gather_s=0)
    writer.put(line("first"))
    assert out.asked.wait(WAIT_S)
    writer.close(WAIT_S)
    assert out.getvalue() == "first\n"


def test_while_nobody_reads_lines_wait_and_then_are_dropped_and_counted() -> None:
    out = Pipe()
    writer = LogWriter(out, shown, Repeats(), most=3, gather_s=0)
    writer.put(line("stuck"))
    assert out.asked.wait(WAIT_S)
    for i in range(8):
        writer.put(line(f"e{i}"))
    out.opened.set()
    writer.close(WAIT_S)
    assert out.getvalue().splitlines() == ["stuck", "e0", "e1", "e2", "log.dropped5"]


def test_a_reader_that_is_gone_ends_nothing() -> None:
    out = Pipe()
    out.broken = True
    out.opened.set()
    writer = LogWriter(out, shown, Repeats(), gather_s=0)
    writer.put(line("lost"))
    assert out.asked.wait(WAIT_S)
    out.asked.clear()
    writer.put(line("lost too"))
    assert out.asked.wait(WAIT_S)
    out.broken = False
    writer.put(line("back"))
    writer.close(WAIT_S)
    assert out.getvalue().splitlines()[-1].startswith("log.dropped")


def test_a_line_that_cannot_be_written_is_told_of() -> None:
    def render(line: Line) -> str:
        if line["event"] == "bad":
            raise RuntimeError
        return shown(line)

    out = io.StringIO()
    writer = LogWriter(out, render, Repeats())
    writer.put(line("bad"))
    writer.put(line("good"))
    writer.close(WAIT_S)
    assert out.getvalue().splitlines() == ["log.unwritablebad", "good"]


def test_fields_that_come_later_are_worked_out_where_they_are_written() -> None:
    threads: list[str] = []

    def fields() -> dict[str, Any]:
        threads.append(threading.current_thread().name)
        return {"lines": 7}

    def broken() -> dict[str, Any]:
        raise KeyError

    out = io.StringIO()
    writer = LogWriter(out, shown, Repeats())
    writer.put(line("first", later=fields))
    writer.put(line("lost", later=broken))
    writer.close(WAIT_S)
    assert out.getvalue().splitlines() == ["first7", "log.unwritablelost"]
    assert threads == ["log"]


def test_repeated_warnings_are_told_as_one_at_the_end() -> None:
    out = io.StringIO()
    writer = LogWriter(out, shown, Repeats(3600))
    for _ in range(5):
        writer.put(line("peer.lost", "warning"))
    writer.close(WAIT_S)
    assert out.getvalue().splitlines() == ["peer.lost", "peer.lost3"]


@pytest.mark.parametrize("threads", [8])
def test_threads_may_log_at_once(threads: int) -> None:
    out = io.StringIO()
    writer = LogWriter(out, shown, Repeats(), gather_s=0)

    def write(name: int) -> None:
        for i in range(200):
            writer.put(line(f"{name}-{i}"))

    running = [threading.Thread(target=write, args=(name,)) for name in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    writer.close(WAIT_S)
    written = out.getvalue().splitlines()
    assert len(written) == threads * 200
    for name in range(threads):
        own = [text for text in written if text.startswith(f"{name}-")]
        assert own == [f"{name}-{i}" for i in range(200)]
