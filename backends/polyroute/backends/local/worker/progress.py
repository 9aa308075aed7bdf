"""Says how far a load is, at a pace that people can read."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from polyroute.backends.local.messages import Progress

_EVERY_S = 1.0
_POLL_S = 2.0


class Reporter:
    """Passes on the start of each stage, its end, and at most one report a second between."""

    def __init__(self, send: Callable[[Progress], None]) -> None:
        self._send = send
        self._stage = ""
        self._due = 0.0
        self._lock = threading.Lock()

    def __call__(self, stage: str, done: int = 0, total: int = 0) -> None:
        with self._lock:
            now = time.monotonic()
            if stage == self._stage and now < self._due and done != total:
                return
            self._stage, self._due = stage, now + _EVERY_S
        self._send(Progress(stage, done, total))

    def bar(self, stage: str) -> Callable[..., _Bar]:
        """Something to stand in for `tqdm`, whose progress becomes that of `stage`."""

        def make(iterable: Iterable[Any] = (), *_args: object, total: int | None = None, **_kwargs: object) -> _Bar:
            return _Bar(self, stage, iterable, total)

        return make

    @contextmanager
    def growth(self, stage: str, folder: Path) -> Iterator[None]:
        """While it is open, reports how many bytes have come into `folder`."""
        before, ended = _size(folder), threading.Event()

        def watch() -> None:
            while not ended.wait(_POLL_S):
                if (grown := _size(folder) - before) > 0:
                    self(stage, grown)

        watcher = threading.Thread(target=watch, name="load-progress", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()


class _Bar:
    """The part of tqdm's interface that transformers uses."""

    def __init__(self, report: Reporter, stage: str, iterable: Iterable[Any], total: int | None) -> None:
        self._report, self._stage, self._iterable = report, stage, iterable
        self._total = total or (len(iterable) if isinstance(iterable, Sized) else 0)
        self._done = 0

    def __iter__(self) -> Iterator[Any]:
        for item in self._iterable:
            yield item
            self.update()

    def update(self, n: int = 1) -> None:
        self._done += n
        self._report(self._stage, self._done, self._total)

    def close(self) -> None:
        return None

    def set_description(self, *_args: object, **_kwargs: object) -> None:
        return None

    set_postfix = set_description

    def __enter__(self) -> _Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _size(folder: Path) -> int:
    total = 0
    for path in folder.glob("*") if folder.is_dir() else ():
        try:
            total += path.stat().st_size
        except OSError:  # renamed meanwhile
            continue
    return total
