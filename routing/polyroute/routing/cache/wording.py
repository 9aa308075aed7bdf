"""What a request asks in words, apart from all else that must be equal; and when near words do not mean the same."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from polyroute.core.request import Request

MOST_CHARS: Final = 2_000
"""Longest text that is compared; a longer one is not worded in another way, it is another text."""

_WORD: Final = re.compile(r"\w+(?:['\u2019]\w+)?")
_NUMBER: Final = re.compile(r"\d+")
_NEGATIONS: Final = frozenset({"no", "not", "never", "none", "neither", "nor", "without", "cannot", "except"})


@dataclass(frozen=True, slots=True)
class Wording:
    """`text` is the last turn of the user; `rest` is the request without it, all of which must be equal."""

    text: str
    rest: Request


def wording(request: Request) -> Wording | None:
    """The part of a conversation that may be worded in another way; None where nothing may be.

    A lone prompt has none: its instructions cannot be told from its question. Nor has a request with tools, whose calls
    act on the world, with a response format, which programs read, or with log probabilities, which belong to the very
    tokens.
    """
    if not request.messages or request.prompt is not None:
        return None
    if request.tools or request.response_format is not None or request.sampling.logprobs is not None:
        return None
    last = request.messages[-1]
    if last.role != "user" or last.tool_calls or last.tool_call_id or not 0 < len(last.content) <= MOST_CHARS:
        return None
    return Wording(last.content, replace(request, messages=(*request.messages[:-1], replace(last, content=""))))


def difference(one: str, other: str) -> str:
    """Why two texts do not ask the same although their vectors are near, in words; empty where nothing shows it.

    Vectors hardly tell the order of words, numbers and negations: "A before B" is nearer to "B before A" than to any
    paraphrase. These rules are for English, and no proof of anything.
    """
    ones, others = _words(one), _words(other)
    if Counter(ones) == Counter(others):
        return "" if ones == others else "the same words in another order"
    if Counter(_NUMBER.findall(one)) != Counter(_NUMBER.findall(other)):
        return "other numbers"
    if _negations(ones) != _negations(others):
        return "a negation more or less"
    return ""


def agreement(one: str, other: str) -> float:
    """How alike two answers are, 0 to 1: the F1 measure of their words in common (Rajpurkar et al., 2016)."""
    ones, others = Counter(_words(one)), Counter(_words(other))
    if not ones or not others:
        return float(not ones and not others)
    common = (ones & others).total()
    return 2 * common / (ones.total() + others.total())


def same(one: str, other: str) -> bool:
    """Whether two answers are equal, white space and letter case aside."""
    return one.casefold().split() == other.casefold().split()


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _negations(words: list[str]) -> int:
    return sum(word in _NEGATIONS or word.endswith(("n't", "n\u2019t")) for word in words)
