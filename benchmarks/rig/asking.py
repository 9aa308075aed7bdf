"""Single requests over HTTP: to wait for a server, and to fill its cache."""

from __future__ import annotations

import urllib.error
import urllib.request

from benchmarks.rig.programs import CannotRun
from benchmarks.rig.workload import CHAT, Ask, filled

_PATIENCE_S = 60.0


def answer(port: int, ask: Ask, number: int = 0, path: str = CHAT) -> bytes:
    """What a server answers to one of the questions; raises `OSError` for any status but 200."""
    body = filled(ask.http(), number)
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=_PATIENCE_S) as came:
        whole: bytes = came.read()
    if whole.count(b"~") < ask.words:
        raise CannotRun(f"the server at port {port} answered {whole[:300]!r}")
    return whole
