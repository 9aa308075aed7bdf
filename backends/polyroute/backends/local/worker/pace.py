"""How much of the waiting prompts a step may read, so that those who are being answered hardly notice."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

_LEAST_SHARE = 0.5  # of a step's time, for prompts that wait
_WAITER = 4.0  # what one who waits for the first token weighs against one who gets the next
_LEAST = 16  # tokens a step that prompts get in any case
_PROBE = 8  # the same where it is to be found out what answers cost
_STALE = 32  # steps after which that is found out anew
_KEPT = 3  # the latest costs that are looked at: what holds a step up only adds to it, so the least of them counts


class Pace:
    """Shares each step's time between prompts and answers, by what it learns of their costs from how long steps take.

    Prompts get half of the time, or more where many wait beside few answers: the sooner they are read, the more answers
    share each step. `max_tokens` bounds a step in any case. Where it is not known what so many answers cost, a step
    reads little, and shows it.
    """

    def __init__(self, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._steps = 0
        self._token = _Cost()
        self._decode: dict[int, _Cost] = {}  # by about how many answers

    def tokens(self, decoding: int, waiting: int) -> int:
        """How many tokens of prompts the next step may read beside `decoding` answers; `waiting` are not yet read."""
        room = max(_LEAST, self._max_tokens - decoding)
        if not decoding or not waiting or not self._token.least:
            return room
        known = self._decode.get(_about(decoding))
        if known is None or self._steps - known.at > _STALE:
            return _PROBE
        share = max(_LEAST_SHARE, _WAITER * waiting / (_WAITER * waiting + decoding))
        return min(room, max(_LEAST, int(share / (1 - share) * known.least / self._token.least)))

    def note(self, decoding: int, prefilled: int, seconds: float) -> None:
        """Takes in what a step took that decoded for `decoding` answers and read `prefilled` tokens of prompts."""
        self._steps += 1
        if decoding and prefilled <= _PROBE:
            rest = seconds - prefilled * self._token.least
            self._decode.setdefault(_about(decoding), _Cost()).add(max(rest, seconds / 2), self._steps)
        elif prefilled >= _LEAST:  # of fewer, a step's own cost is the larger part
            rest = seconds - self._decoding_s(decoding)
            self._token.add(max(rest, seconds / 4) / prefilled, self._steps)

    def _decoding_s(self, decoding: int) -> float:
        """What so many answers cost, or the most that fewer did."""
        about = _about(decoding)
        return max((cost.least for answers, cost in self._decode.items() if answers <= about), default=0.0)


@dataclass(slots=True)
class _Cost:
    """The latest seconds that something took; `at` is the step of the last of them."""

    at: int = 0
    _latest: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))

    @property
    def least(self) -> float:
        return min(self._latest, default=0.0)

    def add(self, seconds: float, step: int) -> None:
        self._latest.append(seconds)
        self.at = step


def _about(answers: int) -> int:
    """Numbers of answers that cost about the same: two kinds for each doubling; -1 for none."""
    return int(2 * math.log2(answers)) if answers else -1
