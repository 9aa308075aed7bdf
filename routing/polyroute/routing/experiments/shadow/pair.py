"""What a pair is: the two sides of a call and its copy, and what comparing them gives."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

from polyroute.routing.experiments.records import OK

MOST_TOKENS: Final = 4_096
"""Tokens of an answer that are compared."""

_TOKEN: Final = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a pair: how it ended, what it said (cut to `MOST_CONTENT`), and how long its model took, in seconds.

    `first_token_s` and `total_s` count from when the model was asked; both are None where they say nothing of it, as
    with an answer from the cache.
    """

    outcome: str = OK
    text: str = ""
    finish_reason: str = ""
    completion_tokens: int = 0
    first_token_s: float | None = None
    total_s: float | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """A call of `route` and its copy at `deployment`; `at` is Unix time in seconds.

    `missing` is why there is nothing to compare, empty where there is. `edit_distance` lies in [0, 1]. The figures of
    the comparison are None unless both sides were answered; ratios are the copy's over the caller's. Texts are empty
    unless the route records content.
    """

    at: float
    pair_id: str
    request_id: str
    route: str
    deployment: str
    version: str = ""
    missing: str = ""
    caller_outcome: str = ""
    copy_outcome: str = ""
    exact: bool | None = None
    edit_distance: float | None = None
    length_ratio: float | None = None
    same_finish: bool | None = None
    first_token_ratio: float | None = None
    total_ratio: float | None = None
    prompt: str = ""
    caller_text: str = ""
    copy_text: str = ""

    @property
    def result(self) -> str:
        """`compared`; which side has failed where one has, `copy`, `caller` or `both`; or why there is no pair."""
        if self.missing:
            return self.missing
        failed = {(True, False): "copy_failed", (False, True): "caller_failed", (False, False): "both_failed"}
        return failed.get((self.caller_outcome == OK, self.copy_outcome == OK), "compared")


def tokens(text: str) -> list[str]:
    """Words and marks of a text, the first `MOST_TOKENS`: tokens that are the same whatever model wrote them."""
    found = []
    for match in _TOKEN.finditer(text):
        found.append(match[0])
        if len(found) == MOST_TOKENS:
            break
    return found


def edit_distance(caller: str, copy: str) -> float:
    """Insertions, deletions and changes of tokens that lead from one text to the other, over the longer one's tokens.

    0 for texts of equal tokens, 1 where none is left in its place (V. Levenshtein, "Binary codes capable of correcting
    deletions, insertions, and reversals", 1966).
    """
    from rapidfuzz.distance import Levenshtein  # only who compares pairs pays for it

    return float(Levenshtein.normalized_distance(tokens(caller), tokens(copy)))


def compared(caller: Side, copy: Side) -> dict[str, bool | float | None]:
    """The figures of a pair; none but for two answers."""
    if caller.outcome != OK or copy.outcome != OK:
        return {}
    exact = caller.text == copy.text
    return {
        "exact": exact,
        "edit_distance": 0.0 if exact else edit_distance(caller.text, copy.text),
        "length_ratio": _ratio(copy.completion_tokens, caller.completion_tokens),
        "same_finish": caller.finish_reason == copy.finish_reason,
        "first_token_ratio": _ratio(copy.first_token_s, caller.first_token_s),
        "total_ratio": _ratio(copy.total_s, caller.total_s),
    }


def _ratio(copy: float | None, caller: float | None) -> float | None:
    if not copy or not caller or not math.isfinite(copy / caller):
        return None
    return copy / caller
