"""The worker processes of local models that the tests' own process has started."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def workers() -> set[int]:
    """Those that run. Threads and processes that end while this looks are none."""
    children: set[int] = set()
    for task in Path(f"/proc/{os.getpid()}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            children.update(map(int, (task / "children").read_text().split()))
    return {child for child in children if _is_worker(child)}


def _is_worker(pid: int) -> bool:
    try:
        return b"polyroute.backends.local.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
