"""Who waits, and who is next: in order within a caller, in turn between callers."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Items of many callers. Each caller's come out in the order they went in, one a turn; callers take turns.

    Round robin over per-caller queues is fair queueing for items of equal cost (Nagle, RFC 970, 1985; McKenney,
    "Stochastic Fairness Queueing", INFOCOM 1990). From the latter is also that a full queue makes room at the expense
    of whoever has most in it, and the index by length that finds that caller at once. Callers are told apart exactly,
    not by a hash: only those that have items here are known, so there are never more of them than items.

    `push`, `pop`, `remove` and `drop` take constant time. An item is in the queue once, and is hashable.
    """

    def __init__(self) -> None:
        self._items: OrderedDict[str, OrderedDict[T, None]] = OrderedDict()  # callers, the next one to serve first
        self._callers: dict[int, OrderedDict[str, None]] = {}  # by how many items they have
        self._longest = 0
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __repr__(self) -> str:
        return f"<FairQueue {self._size} of {len(self._items)} callers, most {self._longest}>"

    @property
    def callers(self) -> int:
        """How many callers have items."""
        return len(self._items)

    @property
    def longest(self) -> int:
        """How many items the caller with the most has."""
        return self._longest

    def of(self, caller: str) -> int:
        """How many items `caller` has."""
        return len(self._items.get(caller, ()))

    def ahead(self, caller: str) -> int:
        """How many items go before the next that `caller` adds; where it has some already, perhaps a round more.

        Takes time in proportion to the different lengths that there are, at most the root of twice the items.
        """
        turns = max(self.of(caller), 1)
        return sum(min(length, turns) * len(callers) for length, callers in self._callers.items())

    def push(self, caller: str, item: T) -> None:
        """Adds an item behind the caller's others; a caller that had none takes its turn after all the others."""
        items = self._items.setdefault(caller, OrderedDict())
        items[item] = None
        self._resized(caller, len(items) - 1, len(items))

    def pop(self) -> T:
        """Takes the oldest item of the caller whose turn it is; the queue must not be empty."""
        caller, items = next(iter(self._items.items()))
        item, _ = items.popitem(last=False)
        self._items.move_to_end(caller)
        self._resized(caller, len(items) + 1, len(items))
        return item

    def drop(self) -> T:
        """Takes the youngest item of a caller that has most; the queue must not be empty."""
        caller = next(reversed(self._callers[self._longest]))
        items = self._items[caller]
        item, _ = items.popitem(last=True)
        self._resized(caller, len(items) + 1, len(items))
        return item

    def remove(self, caller: str, item: T) -> None:
        """Takes an item out wherever it stands; does nothing where it is not there."""
        items = self._items.get(caller)
        if items is not None and item in items:
            del items[item]
            self._resized(caller, len(items) + 1, len(items))

    def _resized(self, caller: str, before: int, after: int) -> None:
        self._size += after - before
        if before:
            same = self._callers[before]
            del same[caller]
            if not same:
                del self._callers[before]
        if after:
            self._callers.setdefault(after, OrderedDict())[caller] = None
        else:
            del self._items[caller]
        # One item more or less: no other caller can have come to be, or ceased to be, the longest.
        if after > self._longest or (before == self._longest and before not in self._callers):
            self._longest = after
