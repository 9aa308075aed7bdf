"""Names near a mistyped one, found quickly among many."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable
from difflib import SequenceMatcher

_LONGEST = 128
_CANDIDATES = 32
_BUDGET = 20_000
_CUTOFF = 0.6


class NearNames:
    """Finds up to three names that are spelt much like a given one, whatever the case.

    Names are indexed by their trigrams; only those that share the most, rarest first, are compared letter by letter.
    So the work of a lookup is bounded, however many names there are and whatever a caller sends.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = sorted(names)
        self._grams: defaultdict[str, list[int]] = defaultdict(list)
        for index, name in enumerate(self._names):
            for gram in _trigrams(name.lower()[:_LONGEST]):
                self._grams[gram].append(index)

    def near(self, name: str) -> tuple[str, ...]:
        """The nearest names, best first."""
        wanted = name[:_LONGEST].lower()
        scored = [(_likeness(wanted, self._names[i].lower()[:_LONGEST]), self._names[i]) for i in self._sharing(wanted)]
        best = sorted((entry for entry in scored if entry[0] >= _CUTOFF), key=lambda entry: (-entry[0], entry[1]))
        return tuple(found for _, found in best[:3])

    def _sharing(self, wanted: str) -> list[int]:
        shared: Counter[int] = Counter()
        spent = 0
        postings = (self._grams[gram] for gram in _trigrams(wanted) if gram in self._grams)
        for posting in sorted(postings, key=len):
            spent += len(posting)
            if spent > _BUDGET and shared:
                break
            shared.update(posting[:_BUDGET])
        return heapq.nlargest(_CANDIDATES, shared, key=lambda index: (shared[index], -index))


def _trigrams(name: str) -> set[str]:
    padded = f"  {name} "
    return {padded[i : i + 3] for i in range(len(padded) - 2)}


def _likeness(left: str, right: str) -> float:
    """0 to 1, by the whole name or by what stands after its last slash, whichever is more alike."""
    whole = SequenceMatcher(None, left, right, autojunk=False).ratio()
    if "/" not in left and "/" not in right:
        return whole
    tails = left.rpartition("/")[2], right.rpartition("/")[2]
    return max(whole, SequenceMatcher(None, *tails, autojunk=False).ratio())
