"""Log probabilities of the tokens of an answer, held back as long as their text is."""

from __future__ import annotations

from collections import deque

import torch

from polyroute.backends.local.worker.detokenize import Vocabulary
from polyroute.core.event import TokenLogprob, TopLogprob


class LogprobTrail:
    """The log probabilities that were asked for, each with the place in the text at which its token begins."""

    def __init__(self, alternatives: int, vocabulary: Vocabulary) -> None:
        self._alternatives = alternatives
        self._vocabulary = vocabulary
        self._waiting: deque[tuple[int, TokenLogprob]] = deque()

    def add(self, token: int, logits: torch.Tensor, start: int) -> None:
        """Notes a token that begins at character `start`; `logits` are the model's own, float32 [1, vocabulary]."""
        logs = logits[0].log_softmax(dim=-1)
        top: tuple[TopLogprob, ...] = ()
        if self._alternatives:
            values, ids = logs.topk(min(self._alternatives, logs.numel()))
            top = tuple(
                TopLogprob(*self._spell(i), value) for i, value in zip(ids.tolist(), values.tolist(), strict=True)
            )
        self._waiting.append((start, TokenLogprob(*self._spell(token), float(logs[token]), top)))

    def take(self, before: int | None) -> tuple[TokenLogprob, ...]:
        """The entries of tokens that begin before character `before`; all of them where it is None."""
        taken = []
        while self._waiting and (before is None or self._waiting[0][0] < before):
            taken.append(self._waiting.popleft()[1])
        return tuple(taken)

    def _spell(self, token: int) -> tuple[str, bytes]:
        spelt = self._vocabulary.token_bytes(token)
        return spelt.decode(errors="replace"), spelt
