"""A set of texts in a few bits each, which takes some others for members as well."""

from __future__ import annotations

import random
from array import array
from typing import Final

_BITS_EACH: Final = 16
_WORD_BITS: Final = 64
_PATTERNS: Final = 2**10
_FEWEST_BITS: Final = 2**16
_MOST_BITS: Final = 2**25
"""4 MiB; of more than two million members the filter still says what it can."""

_drawn: Final = random.Random(0)  # noqa: S311 - any marks will do, as long as they are the same for each text
_MARKS: Final = tuple(sum(1 << bit for bit in _drawn.sample(range(_WORD_BITS), 5)) for _ in range(_PATTERNS))


class Bloom:
    """Has room for `members`, of which about one text in 130 is mistaken for one; more of them, the fuller it is.

    A text has all of its bits in one word, so that to ask for it takes one step. Sources: B. H. Bloom, 1970; words and
    marks that are drawn beforehand: F. Putze, P. Sanders, J. Singler, 2007 (blocked, with bit patterns). For this
    process alone: another one hashes differently.
    """

    __slots__ = ("_last", "_words", "added", "members")

    def __init__(self, members: int) -> None:
        bits = min(max(_FEWEST_BITS, 1 << (_BITS_EACH * members - 1).bit_length()), _MOST_BITS)
        self._words = array("Q", bytes(bits >> 3))
        self._last = len(self._words) - 1
        self.members = members
        self.added = 0

    def __repr__(self) -> str:
        return f"<Bloom {self.added} added, {len(self._words) * self._words.itemsize} bytes>"

    @property
    def full(self) -> bool:
        """Whether it has been given far more than it has room for, and may be larger."""
        return self.added > 2 * max(self.members, _FEWEST_BITS // _BITS_EACH)

    def add(self, text: str) -> None:
        """Makes `text` a member."""
        place = hash(text)
        self._words[place & self._last] |= _MARKS[place >> 40 & _PATTERNS - 1]
        self.added += 1

    def __contains__(self, text: str) -> bool:
        place = hash(text)
        mark = _MARKS[place >> 40 & _PATTERNS - 1]
        return self._words[place & self._last] & mark == mark
