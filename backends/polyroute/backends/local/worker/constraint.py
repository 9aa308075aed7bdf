"""Keeps an answer to a JSON schema, a regular expression or a choice, by telling which tokens may come next.

llguidance does the parsing: an Earley parser over a lexer of regular-expression derivatives, which walks the trie of
the vocabulary (docs/decisions/009).
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Sequence, Set
from typing import Any, Final

import numpy as np
import torch
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from llguidance.hf import from_tokenizer

from polyroute.backends.local.worker.prompts import Refused
from polyroute.core.errors import clip
from polyroute.core.request import ResponseFormat

_SPACE: Final = r"[ ]?|\n[ \t]{0,40}"  # between JSON tokens; where any is allowed, small models write nothing else
_KEPT: Final = 32
_LIMITS: Final = LLParserLimits(verbose_errors=False)  # else messages quote the answer
_MARKS: Final = torch.where(
    torch.arange(256)[:, None].bitwise_right_shift(torch.arange(8)) & 1 == 1, torch.inf, -torch.inf
)  # what each bit of a byte allows a score to be at most


class Constraint:
    """What one answer may still say. It advances with the answer, and a preemption does not touch it."""

    def __init__(self, matcher: LLMatcher, words: int, unusable: int | None) -> None:
        self._matcher = matcher
        self._words = words
        self._unusable = unusable

    @property
    def complete(self) -> bool:
        """Whether nothing but the end may follow."""
        return bool(self._matcher.is_stopped()) and not self._matcher.is_error()

    @property
    def failure(self) -> str:
        """Why no token is allowed any more, or nothing where that is not so."""
        return clip(" ".join(self._matcher.get_error().split()), 200) if self._matcher.is_error() else ""

    def allowed(self) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
        """One bit a token, the lowest first: whether it may come next. End tokens may where the answer is whole."""
        bits = np.zeros(self._words, dtype=np.int32)
        if not self._matcher.is_error():
            self._matcher.unsafe_compute_mask_ptr(bits.ctypes.data, bits.nbytes)
        if self._matcher.is_error():
            bits[:] = 0
        if self._unusable is not None:
            bits.view(np.uint8)[self._unusable // 8] &= 255 - (1 << self._unusable % 8)
        return bits

    def take(self, token: int) -> None:
        """Notes that `token`, which was allowed, has come."""
        self._matcher.consume_token(token)


def mask(scores: torch.Tensor, rows: Sequence[int], constraints: Sequence[Constraint]) -> None:
    """Makes the scores of all tokens that `constraints` do not allow -inf, in place, in `rows` of `scores`."""
    width = scores.shape[1]
    bits = torch.from_numpy(np.stack([constraint.allowed() for constraint in constraints]).view(np.uint8))
    most = torch.nn.functional.embedding(bits.to(scores.device).int(), _MARKS.to(scores.device)).flatten(1)[:, :width]
    if most.shape[1] < width:
        most = torch.nn.functional.pad(most, (0, width - most.shape[1]), value=-torch.inf)
    for row, limit in zip(rows, most, strict=True):
        torch.minimum(scores[row], limit, out=scores[row])


class Constraints:
    """Makes the constraints of one model. Only one thread may compile; what it makes may then go to another."""

    def __init__(self, tokenizer: Any, vocabulary_size: int, eos: Set[int]) -> None:
        """`vocabulary_size` is that of the model's logits, and `eos` are the tokens that end an answer."""
        self._tokenizer = tokenizer
        self._vocabulary_size = max(vocabulary_size, len(tokenizer))
        self._eos = sorted(token for token in eos if token < len(tokenizer))
        self._trie: LLTokenizer | None = None
        self._kept: OrderedDict[ResponseFormat, LLMatcher] = OrderedDict()

    def compile(self, form: ResponseFormat) -> Constraint:
        """A constraint at its beginning. The first takes a second, and a large schema may; raises `Refused`."""
        trie = self._trie = self._trie or self._read_tokenizer()
        matcher = self._kept.pop(form, None)
        if matcher is None:
            matcher = _matcher(form, trie)
        self._kept[form] = matcher
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return Constraint(matcher.deep_copy(), (trie.vocab_size + 31) // 32, None if self._eos else trie.eos_token)

    def _read_tokenizer(self) -> LLTokenizer:
        try:
            return from_tokenizer(
                self._tokenizer,
                n_vocab=self._vocabulary_size,
                eos_token=self._eos or None,
                slices=LLTokenizer.json_slices(),
            )
        except ValueError as error:
            raise Refused(
                "unsupported", "response_format", f"answers of this model cannot be constrained: {_line(error)}"
            ) from error


def _matcher(form: ResponseFormat, trie: LLTokenizer) -> LLMatcher:
    field = f"response_format.{form.kind}"
    try:
        grammar = _grammar(form)
    except ValueError as error:
        why = _line(error)
        raise Refused("invalid", field, f"cannot be read: {why}", quoted=why) from error
    matcher = LLMatcher(trie, grammar, log_level=0, limits=_LIMITS)
    if matcher.is_error():
        why = _reason(matcher.get_error())
        raise Refused("invalid", field, why, quoted=why)
    return matcher


def _grammar(form: ResponseFormat) -> str:
    if isinstance(form.value, tuple):
        return LLMatcher.grammar_from_lark("start: " + " | ".join(json.dumps(choice) for choice in form.value))
    if form.kind == "regex":
        return LLMatcher.grammar_from_regex(form.value)
    return LLMatcher.grammar_from_json_schema(
        form.value, overrides={"lenient": False, "coerce_one_of": False, "whitespace_pattern": _SPACE}
    )


def _reason(message: str) -> str:
    """What llguidance says, without its drawing of where in a grammar of its own the fault is."""
    unimplemented = re.fullmatch(r'Unimplemented keys: \["(.*)"\]', message)
    if unimplemented:
        keywords = unimplemented[1].replace('", "', ", ")
        return f"has keywords that cannot be enforced here: {clip(keywords, 200)}"
    drawing = re.search(r"error: (.*)", message)
    if drawing:
        return clip(drawing[1], 200)
    return _line(message.partition("\n")[0].removeprefix("at 1(8): "))


def _line(message: object) -> str:
    return clip(" ".join(str(message).split()), 200)
