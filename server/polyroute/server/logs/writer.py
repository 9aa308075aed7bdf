"""Writes log lines in a thread, so that a slow terminal or pipe holds up no call."""

from __future__ import annotations

import fcntl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TextIO

from polyroute.core.telemetry import LATER
from polyroute.server.logs.lines import Line
from polyroute.server.logs.repeats import Repeats

MOST_WAITING: Final = 10_000
"""Most lines that wait to be written; what comes beyond them is lost, and told of."""
GATHER_S: Final = 0.05
"""How long lines are gathered before they are written together, in seconds."""
_AT_ONCE: Final = 500
_LAST_S: Final = 2.0


class LogWriter:
    """Lines that are `put` are written in their order, soon; whatever waits when it is closed is written first.

    `turns` is the descriptor of a file that the processes share which write to the same stream.
    """

    def __init__(
        self,
        stream: TextIO,
        render: Callable[[Line], str],
        repeats: Repeats,
        *,
        most: int = MOST_WAITING,
        gather_s: float = GATHER_S,
        clock: Callable[[], float] = time.monotonic,
        turns: int | None = None,
    ) -> None:
        self._turns = turns
        self._stream = stream
        self._render = render
        self._repeats = repeats
        self._most = most
        self._gather_s = gather_s
        self._clock = clock
        self._waiting: deque[Line] = deque()
        self._dropped = 0
        self._counting = threading.Lock()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def put(self, line: Line) -> None:
        """Has a line written; never waits. From any thread."""
        if len(self._waiting) >= self._most:
            self._drop(1)
            return
        self._waiting.append(line)
        if not self._wake.is_set():
            self._wake.set()

    def close(self, wait_s: float = _LAST_S) -> None:
        """Writes what waits, for `wait_s` seconds at most; later lines are lost. A second time does nothing."""
        self._closing.set()
        self._wake.set()
        self._thread.join(wait_s)

    def _run(self) -> None:
        while not self._closing.is_set():
            self._wake.wait(self._repeats.wait_s(self._clock()))
            self._closing.wait(self._gather_s)
            self._wake.clear()
            self._write()
        self._write(last=True)

    def _write(self, *, last: bool = False) -> None:
        while self._waiting:
            lines = [self._waiting.popleft() for _ in range(min(_AT_ONCE, len(self._waiting)))]
            self._out([line for line in lines if self._repeats.passes(line, self._clock())])
        self._out(self._repeats.due(self._clock(), all=last))

    def _out(self, lines: list[Line]) -> None:
        dropped = self._dropped
        if dropped:
            lines.append(_lost(dropped))
        if not lines:
            return
        try:
            text = "".join(map(self._rendered, lines))
            with self._turn():
                self._stream.write(text)
                self._stream.flush()
        except (OSError, ValueError):  # whoever read it is gone: there is nobody to tell
            self._drop(len(lines) - bool(dropped))
        else:
            self._drop(-dropped)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """The stream to ourselves: a pipe mixes what several processes write that is longer than a few kilobytes."""
        if self._turns is None:
            yield
            return
        fcntl.lockf(self._turns, fcntl.LOCK_EX)  # the system ends it with its process
        try:
            yield
        finally:
            fcntl.lockf(self._turns, fcntl.LOCK_UN)

    def _drop(self, count: int) -> None:
        if count:
            with self._counting:
                self._dropped += count

    def _rendered(self, line: Line) -> str:
        try:
            if (later := line.pop(LATER, None)) is not None:
                line |= later()
            return self._render(line)
        except Exception as error:  # noqa: BLE001 - a value that cannot be written must not end the log
            return self._render(_unwritable(line, error))


def _lost(count: int) -> Line:
    return {
        "event": "log.dropped",
        "level": "warning",
        "timestamp": time.time(),
        "lines": count,
        "why": "they came faster than they could be written",
    }


def _unwritable(line: Line, error: Exception) -> Line:
    return {
        "event": "log.unwritable",
        "level": "error",
        "timestamp": time.time(),
        "of": str(line.get("event")),
        "error": type(error).__name__,
    }
