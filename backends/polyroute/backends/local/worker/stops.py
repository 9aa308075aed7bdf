"""Finds stop strings in a text that comes in pieces, and holds back whatever may still become one."""

from __future__ import annotations

from collections.abc import Sequence


class StopScan:
    """Looks for any of `stops` in a growing text.

    The stop string that is complete first wins (of those complete at the same character, the longest), so the result
    does not depend on how the text is cut into pieces. Each stop string is followed by its own automaton (Knuth, Morris
    and Pratt, 1977), which makes a character's cost independent of the strings' length.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._borders = [_borders(stop) for stop in self._stops]
        self._matched = [0] * len(self._stops)
        self._first = frozenset(stop[0] for stop in self._stops)
        self._held = ""
        self.found: str | None = None

    def feed(self, piece: str) -> str:
        """Takes the next piece and returns the text that is now certain; sets `found` at the end of a stop string.

        Of a stop string, nothing is ever returned. After `found`, nothing must be fed.
        """
        if not self._held and self._first.isdisjoint(piece):
            return piece
        text = self._held + piece
        for end, character in enumerate(piece, start=len(self._held) + 1):
            complete = self._advance(character)
            if complete is not None:
                self.found, self._held = complete, ""
                return text[: end - len(complete)]
        certain = len(text) - max(self._matched)
        self._held = text[certain:]
        return text[:certain]

    def flush(self) -> str:
        """Returns what was held back, now that the text has ended."""
        held, self._held = self._held, ""
        return held

    def _advance(self, character: str) -> str | None:
        complete: str | None = None
        for i, (stop, borders) in enumerate(zip(self._stops, self._borders, strict=True)):
            matched = self._matched[i]
            while matched and stop[matched] != character:
                matched = borders[matched - 1]
            if stop[matched] == character:
                matched += 1
            self._matched[i] = matched
            if matched == len(stop) and (complete is None or len(stop) > len(complete)):
                complete = stop
        return complete


def _borders(word: str) -> list[int]:
    """For each prefix of `word`, the length of its longest proper prefix that is also its suffix."""
    borders = [0] * len(word)
    length = 0
    for i in range(1, len(word)):
        while length and word[i] != word[length]:
            length = borders[length - 1]
        if word[i] == word[length]:
            length += 1
        borders[i] = length
    return borders
