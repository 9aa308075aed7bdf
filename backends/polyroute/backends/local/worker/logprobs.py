"""Log probabilities of the tokens of an answer, held back as long as their text is."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from polyroute.backends.local.worker.detokenize import Vocabulary
from polyroute.core.event import TokenLogprob, TopLogprob


@dataclass(frozen=True, slots=True)
class Chosen:
    """How likely a chosen token was, and the most likely ones in its place, likeliest first."""

    logprob: float
    top: tuple[tuple[int, float], ...] = ()


def report(logits: torch.Tensor, tokens: Sequence[int], alternatives: Sequence[int | None]) -> list[Chosen | None]:
    """Log probabilities of `tokens`, one a row of `logits` (the model's own, float32 [n, vocabulary]).

    A row gets as many alternatives as it asked for, and None where it asked for no log probabilities at all or has no
    token, which is -1.
    """
    entries: list[Chosen | None] = [None] * len(tokens)
    rows = [row for row, count in enumerate(alternatives) if count is not None and tokens[row] >= 0]
    if not rows:
        return entries
    logs = (logits if len(rows) == len(tokens) else logits[rows]).log_softmax(dim=-1)
    chosen = logs.gather(1, torch.tensor([[tokens[row]] for row in rows], device=logits.device)).flatten().tolist()
    most = min(max(alternatives[row] or 0 for row in rows), logs.shape[1])
    values, ids = (t.tolist() for t in logs.topk(most)) if most else ([[]] * len(rows), [[]] * len(rows))
    for row, logprob, row_ids, row_values in zip(rows, chosen, ids, values, strict=True):
        entries[row] = Chosen(logprob, tuple(zip(row_ids, row_values, strict=True))[: alternatives[row]])
    return entries


class LogprobTrail:
    """The log probabilities that were asked for, each with the place in the text at which its token begins."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._waiting: deque[tuple[int, TokenLogprob]] = deque()

    def add(self, token: int, entry: Chosen, start: int) -> None:
        """Notes a token that begins at character `start`."""
        top = tuple(TopLogprob(*self._vocabulary.spelt(id), logprob) for id, logprob in entry.top)
        self._waiting.append((start, TokenLogprob(*self._vocabulary.spelt(token), entry.logprob, top)))

    def take(self, before: int | None) -> tuple[TokenLogprob, ...]:
        """The entries of tokens that begin before character `before`; all of them where it is None."""
        taken = []
        while self._waiting and (before is None or self._waiting[0][0] < before):
            taken.append(self._waiting.popleft()[1])
        return tuple(taken)
