"""A warning that repeats itself is told now and then, with how many were left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from polyroute.server.logs.lines import TEMPLATE, Line

INTERVAL_S: Final = 10.0
"""How often equal warnings are told at most, in seconds."""
MOST_KINDS: Final = 1_000
"""Most kinds of warnings that are told apart; of further ones, those of one event are one kind."""

_LIMITED: Final = ("warning", "error", "critical")
_ABOUT: Final = ("model", "peer", "name", "replica", "deployment", "route", "file", "folder", "tier", "key", "device")
"""What a warning may be about: those about different things are different."""


@dataclass(slots=True)
class _Kind:
    told_at: float
    left_out: int = 0
    last: Line | None = None


class Repeats:
    """Lets the first warning of each kind pass, and then one in `interval_s` seconds, the latest.

    Lines that belong to a request are no repetitions: each of them passes. Not for several threads.
    """

    def __init__(self, interval_s: float = INTERVAL_S) -> None:
        self._interval_s = interval_s
        self._kinds: dict[tuple[object, ...], _Kind] = {}

    def passes(self, line: Line, now: float) -> bool:
        """Whether the line is to be told now; one that is not may be told by `due`."""
        if line["level"] not in _LIMITED or "request_id" in line:
            return True
        name = self._name(line)
        kind = self._kinds.get(name)
        if kind is None or (kind.last is None and now - kind.told_at >= self._interval_s):
            self._kinds[name] = _Kind(now)
            return True
        if kind.last is not None:
            kind.left_out += 1
        kind.last = line
        return False

    def due(self, now: float, *, all: bool = False) -> list[Line]:
        """Held lines that may be told now, with `left_out` where others went before them; `all` of them at the end."""
        told = []
        for name, kind in list(self._kinds.items()):
            if not all and now - kind.told_at < self._interval_s:
                continue
            if kind.last is None:
                del self._kinds[name]
                continue
            told.append({**kind.last, "left_out": kind.left_out} if kind.left_out else kind.last)
            self._kinds[name] = _Kind(now)
        return told

    def wait_s(self, now: float) -> float | None:
        """Seconds until a held line is due; None while none is held."""
        times = [kind.told_at for kind in self._kinds.values() if kind.last is not None]
        return max(0.0, min(times) + self._interval_s - now) if times else None

    def _name(self, line: Line) -> tuple[object, ...]:
        event = line.get(TEMPLATE, line["event"])
        name = (event, line.get("logger"), *(str(line[about]) for about in _ABOUT if about in line))
        return name if name in self._kinds or len(self._kinds) < MOST_KINDS else (event,)
