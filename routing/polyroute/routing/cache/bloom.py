"""A set of texts in a few bits each, which takes some others for members as well."""

from __future__ import annotations

from typing import Final

_PLACES: Final = 4
_BITS_EACH: Final = 16
_FEWEST_BITS: Final = 2**16
_MOST_BITS: Final = 2**25
"""4 MiB; of more than two million members the filter still says what it can."""


class Bloom:
    """Has room for `members`, of which about one text in 400 is mistaken for one; more of them, the fuller it is.

    Source: B. H. Bloom, 1970; places by double hashing: A. Kirsch and M. Mitzenmacher, 2006. For this process alone:
    another one hashes differently.
    """

    __slots__ = ("_bits", "_mask", "added", "members")

    def __init__(self, members: int) -> None:
        bits = min(max(_FEWEST_BITS, 1 << (_BITS_EACH * members - 1).bit_length()), _MOST_BITS)
        self._bits = bytearray(bits >> 3)
        self._mask = bits - 1
        self.members = members
        self.added = 0

    def __repr__(self) -> str:
        return f"<Bloom {self.added} added, {len(self._bits)} bytes>"

    @property
    def full(self) -> bool:
        """Whether it has been given far more than it has room for, and may be larger."""
        return self.added > 2 * max(self.members, _FEWEST_BITS // _BITS_EACH)

    def add(self, text: str) -> None:
        """Makes `text` a member."""
        place, mask, bits = hash(text), self._mask, self._bits
        step = place >> 32 | 1
        for _ in range(_PLACES):
            at = place & mask
            bits[at >> 3] |= 1 << (at & 7)
            place += step
        self.added += 1

    def __contains__(self, text: str) -> bool:
        place, mask, bits = hash(text), self._mask, self._bits
        step = place >> 32 | 1
        for _ in range(_PLACES):
            at = place & mask
            if not bits[at >> 3] & (1 << (at & 7)):
                return False
            place += step
        return True
