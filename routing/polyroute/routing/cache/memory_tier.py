"""Answers in this process's memory: the objects themselves, so that a hit decodes nothing and waits for nobody."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from polyroute.routing.cache.codec import StoredAnswer
from polyroute.routing.cache.terms import AnswerKey

_TOKEN_BYTES: Final = 128
_LOGPROB_BYTES: Final = 256
_FORMS_BYTES: Final = 512
_LARGEST_PART: Final = 4
"""An answer that takes more than this part of the tier would push out too many others."""


@dataclass(slots=True)
class _Entry:
    answer: StoredAnswer
    generation: int
    bytes: int
    expires: float


def footprint(answer: StoredAnswer, encoded: int) -> int:
    """About how many bytes an answer takes as objects; `encoded` is its size as the codec's bytes.

    What is given again is there twice: its parts, and one form of it that is written.
    """
    logprobs = sum(1 + len(each.top) for token in answer.tokens for each in token.logprobs)
    return 2 * encoded + _FORMS_BYTES + _TOKEN_BYTES * (1 + len(answer.tokens)) + _LOGPROB_BYTES * logprobs


class MemoryTier:
    """The answers used last, `max_bytes` of them at most. Used on the event loop alone; no call of it waits."""

    name: Final = "memory"

    def __init__(self, max_bytes: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self.by_model: dict[str, tuple[int, int]] = {}
        """Entries and bytes of each model that has any."""
        self._clock = clock
        self._entries: OrderedDict[str, _Entry] = OrderedDict()  # least recently used first

    def __repr__(self) -> str:
        return f"<MemoryTier {len(self)} answers, {self.bytes} of {self.max_bytes} bytes>"

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: AnswerKey) -> StoredAnswer | None:
        """The answer under `key`, unless it is none of the key's generation or has expired."""
        entry = self._entries.get(key.digest)
        if entry is None:
            return None
        if entry.generation != key.moment.local or entry.answer.key != key.canonical:
            return None
        if entry.expires <= self._clock():
            self._remove(key.digest)
            return None
        self._entries.move_to_end(key.digest)
        return entry.answer

    def put(self, key: AnswerKey, answer: StoredAnswer, size: int, stay_s: float | None) -> bool:
        """Keeps an answer of `size` bytes (see `footprint`) for `stay_s` seconds; says whether it has room for it."""
        if size * _LARGEST_PART > self.max_bytes or (stay_s is not None and stay_s <= 0):
            return False
        self._remove(key.digest)
        expires = float("inf") if stay_s is None else self._clock() + stay_s
        self._entries[key.digest] = _Entry(answer, key.moment.local, size, expires)
        self._count(answer.model, 1, size)
        self._fit()
        return True

    def forget(self, digest: str) -> int:
        """Removes one answer; returns how many there were."""
        return int(self._remove(digest))

    def resize(self, max_bytes: int) -> None:
        """Has another size from now on."""
        self.max_bytes = max_bytes
        self._fit()

    def entries_of(self, model: str) -> int:
        """How many answers there are: of a model, or of all."""
        return self.by_model.get(model, (0, 0))[0] if model else len(self)

    def sweep(self, generation: Callable[[str], int]) -> Iterator[None]:
        """Removes what has expired, and what is none of its model's `generation`; yields after each that it looked at,
        so that whoever sweeps may pause."""
        for digest in list(self._entries):
            entry = self._entries.get(digest)
            if entry is None:
                continue
            if entry.expires <= self._clock() or entry.generation != generation(entry.answer.model):
                self._remove(digest)
            yield

    def _fit(self) -> None:
        while self.bytes > self.max_bytes:
            self._remove(next(iter(self._entries)))

    def _remove(self, digest: str) -> bool:
        entry = self._entries.pop(digest, None)
        if entry is None:
            return False
        self._count(entry.answer.model, -1, -entry.bytes)
        return True

    def _count(self, model: str, entries: int, size: int) -> None:
        self.bytes += size
        had_entries, had_bytes = self.by_model.get(model, (0, 0))
        if had_entries + entries:
            self.by_model[model] = (had_entries + entries, had_bytes + size)
        else:
            self.by_model.pop(model, None)
