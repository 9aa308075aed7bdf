"""The series of each model and route: of known names alone, found once, and ended with their names."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TypeAlias, TypeVar, cast

from prometheus_client import Counter, Gauge

from polyroute.core.telemetry import OTHER
from polyroute.routing.metrics.instruments import FastHistogram, Instrument

_InstrumentT = TypeVar("_InstrumentT", Counter, Gauge, FastHistogram)
_Key: TypeAlias = tuple[Instrument, tuple[str, ...]]


class Series:
    """Children of instruments by the names in their first labels, so that they end without a look at all others.

    `known` are the names that may become labels; all others are counted together, as `_other`.
    """

    def __init__(self, known: Collection[str] = ()) -> None:
        self._known = set(known)
        self._found: dict[_Key, Instrument] = {}
        self._of_name: dict[str, dict[_Key, None]] = {}
        self._seen: dict[tuple[Instrument, tuple[str, ...], tuple[str, ...]], Instrument] = {}

    def known(self, name: str) -> str:
        """The name as a label: itself, or `_other`."""
        return name if name in self._known else OTHER

    def know(self, names: Iterable[str]) -> set[str]:
        """From now on these are the names that may become labels. The series of others that were known end.

        Returns those others.
        """
        before, self._known = self._known, set(names)
        self._seen.clear()
        ended = before - self._known
        for name in ended:
            self._end(name)
        return ended

    def forget(self, name: str) -> None:
        """This is none of the names any more; its series end."""
        self._known.discard(name)
        self._seen.clear()
        self._end(name)

    def of(self, instrument: _InstrumentT, name: str, *more: str) -> _InstrumentT:
        """The series of a model or deployment, whose label is the first one, and of `more` labels."""
        return self.between(instrument, (name,), more)

    def between(self, instrument: _InstrumentT, names: tuple[str, ...], more: tuple[str, ...] = ()) -> _InstrumentT:
        """The series of several names, whose labels are the first ones; it ends with any of them."""
        said = (instrument, names, more)
        seen = self._seen.get(said)
        if seen is not None:
            return cast("_InstrumentT", seen)
        labels = tuple(map(self.known, names))
        found = self._find(instrument, labels, more)
        if labels == names:  # of others there may be any number
            self._seen[said] = found
        return found

    def _find(self, instrument: _InstrumentT, names: tuple[str, ...], more: tuple[str, ...]) -> _InstrumentT:
        key: _Key = (instrument, (*names, *more))
        found = self._found.get(key)
        if found is None:
            found = self._found[key] = instrument.labels(*key[1])
            for name in names:
                self._of_name.setdefault(name, {})[key] = None
        return cast("_InstrumentT", found)

    def _end(self, name: str) -> None:
        for key in self._of_name.pop(name, ()):
            if self._found.pop(key, None) is not None:  # else it has ended with another of its names
                instrument, labels = key
                instrument.remove(*labels)
                for other in labels:
                    if other != name and (of_other := self._of_name.get(other)) is not None:
                        of_other.pop(key, None)
