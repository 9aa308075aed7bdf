"""What a process of the server does once its start is over."""

from __future__ import annotations

import gc
import sys
import threading

import pytest

from polyroute.server import huge_pages
from polyroute.server.cli import unburden


def test_the_event_loop_goes_on_while_the_heap_is_put_into_huge_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """With many models that takes half a second or more, and calls come already."""
    begun, going_on = threading.Event(), threading.Event()

    def gather() -> None:
        begun.set()
        going_on.wait(10)

    monkeypatch.setattr(huge_pages, "gather", gather)
    for name in ("freeze", "enable", "set_threshold"):
        monkeypatch.setattr(gc, name, lambda *_: None)
    monkeypatch.setattr(sys, "set_asyncgen_hooks", lambda **_: None)
    unburden()
    assert begun.wait(10)
    (gathering,) = [thread for thread in threading.enumerate() if thread.name == "huge pages"]
    assert gathering.daemon  # or it could hold up the end of the process
    going_on.set()
    gathering.join()
