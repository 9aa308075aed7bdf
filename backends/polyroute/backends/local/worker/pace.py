"""How much of the waiting prompts a step may read, so that those who are being answered hardly notice."""

from __future__ import annotations

_STRETCH = 2.0  # how much longer a step may take for the prompts that it reads along
_LEAST = 16  # tokens a step that prompts get in any case
_WEIGHT = 0.2  # of the latest step in the averages


class Pace:
    """Learns what decoding and prefill cost, from how long steps take.

    While few prompts wait beside many answers, a step reads as much of them as makes it `_STRETCH` times as long as
    one that only decodes. Where as many wait as are being answered, it reads `max_tokens`: the sooner they are read,
    the more answers share each step.
    """

    def __init__(self, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._decode_s: float | None = None
        self._token_s: float | None = None

    def tokens(self, decoding: int, waiting: int) -> int:
        """How many tokens of prompts the next step may read beside `decoding` answers; `waiting` are not yet read."""
        room = max(_LEAST, self._max_tokens - decoding)
        if not decoding or waiting >= decoding or self._decode_s is None or not self._token_s:
            return room
        return min(room, max(_LEAST, int((_STRETCH - 1) * self._decode_s / self._token_s)))

    def note(self, decoding: int, prefilled: int, seconds: float) -> None:
        """Takes in what a step took that decoded for `decoding` answers and read `prefilled` tokens of prompts."""
        if not prefilled:
            self._decode_s = _mix(self._decode_s, seconds)
        elif not decoding or self._decode_s is not None:
            spent = seconds - (self._decode_s or 0.0) if decoding else seconds
            self._token_s = _mix(self._token_s, max(spent, 0.0) / prefilled)


def _mix(average: float | None, latest: float) -> float:
    return latest if average is None else (1 - _WEIGHT) * average + _WEIGHT * latest
