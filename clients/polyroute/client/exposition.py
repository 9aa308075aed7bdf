"""Reads what `/metrics` says: the text format of Prometheus, version 0.0.4, as far as a reader of counts needs it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_LINE: Final = re.compile(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+-?\d+)?")
_LABEL: Final = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)",?')
_ESCAPED: Final = re.compile(r"\\(.)")
_ESCAPES: Final = {"n": "\n", "\\": "\\", '"': '"'}


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of one series."""

    labels: Mapping[str, str]
    value: float


class Samples:
    """All samples of one scrape, by name. Raises ValueError for a line that is none of the format's."""

    def __init__(self, text: str) -> None:
        self._of: dict[str, dict[frozenset[tuple[str, str]], Sample]] = {}
        for number, line in enumerate(text.split("\n"), 1):
            if line and not line.startswith("#"):
                name, sample = _sample(line, number)
                self._of.setdefault(name, {})[frozenset(sample.labels.items())] = sample

    def by(self, label: str, name: str) -> dict[str, list[Sample]]:
        """The samples of that name by the value of one of their labels."""
        found: dict[str, list[Sample]] = {}
        for sample in self._of.get(name, {}).values():
            found.setdefault(sample.labels.get(label, ""), []).append(sample)
        return found

    def value(self, name: str, labels: Mapping[str, str]) -> float:
        """The value of the series with exactly these labels; 0 where there is none."""
        sample = self._of.get(name, {}).get(frozenset(labels.items()))
        return 0.0 if sample is None else sample.value


def _sample(line: str, number: int) -> tuple[str, Sample]:
    found = _LINE.fullmatch(line.strip(" "))
    if found is None:
        raise ValueError(f"line {number} is no sample of a metric: `{line[:80]}`")
    name, labels, value = found.groups()
    try:
        return name, Sample(_labels(labels or ""), float(value))
    except ValueError:
        raise ValueError(f"line {number}: `{value[:80]}` is no number") from None


def _labels(text: str) -> dict[str, str]:
    return {
        name: _ESCAPED.sub(lambda escape: _ESCAPES.get(escape[1], escape[0]), value)
        for name, value in _LABEL.findall(text)
    }
