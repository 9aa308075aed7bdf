"""What has been made unreachable: how often each model's answers were, and which single ones."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from polyroute.routing.cache.terms import AnswerKey, Moment

_MOST_FORGOTTEN: Final = 1024


class Invalidations:
    """Counts invalidations. A generation is a time in microseconds, so that one that is lost cannot come back."""

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self._sequence = 0
        self._all = 0
        self._models: dict[str, int] = {}
        self._forgotten: OrderedDict[str, int] = OrderedDict()
        self._floor = 0

    def moment(self, model: str) -> Moment:
        """What has been invalidated by now, as a call for `model` sees it."""
        return Moment(max(self._all, self._models.get(model, 0)), 0, self._sequence)

    def invalidate(self, model: str = "") -> None:
        """Makes all answers of a model unreachable, or all there are."""
        generation = max(int(self._wall() * 1e6), self.moment(model).local + 1)
        self._sequence += 1
        if model:
            self._models[model] = generation
        else:
            self._all = max(generation, *self._models.values(), 0)
            self._models.clear()

    def forget(self, digest: str) -> None:
        """Makes one answer unreachable."""
        self._sequence += 1
        self._forgotten[digest] = self._sequence
        self._forgotten.move_to_end(digest)
        if len(self._forgotten) > _MOST_FORGOTTEN:
            _, self._floor = self._forgotten.popitem(last=False)

    def holds(self, key: AnswerKey) -> bool:
        """Whether nothing has made the key's answer unreachable since its call began."""
        return max(self._floor, self._forgotten.get(key.digest, 0)) <= key.moment.sequence
