"""Makes tokens that an answer has already had less likely, or more."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

_MOST_SCORE = 1e30  # what a tiny penalty may blow scores up to, so that a temperature still has room
_LEAST_REPETITION = 1e-38  # less is 0 in float32, and 0 / 0 no score


@dataclass(frozen=True, slots=True)
class Penalties:
    """`repetition` as of transformers' `generate` (Keskar et al., 2019), on the prompt's tokens and the answer's;
    `presence` and `frequency` as of OpenAI's API, on the answer's alone."""

    repetition: float = 1.0
    presence: float = 0.0
    frequency: float = 0.0

    @property
    def none(self) -> bool:
        """Whether they change nothing."""
        return self.repetition == 1.0 and not self.presence and not self.frequency


class Tally:
    """The tokens that one answer's penalties are for, and how often the answer has each."""

    def __init__(self, penalties: Penalties, prompt: Iterable[int]) -> None:
        self.penalties = penalties
        first = sorted(set(prompt)) if penalties.repetition != 1.0 else []
        self._places = {token: place for place, token in enumerate(first)}
        self._ids = np.array(first or [0], dtype=np.int64)
        self._counts = np.zeros(len(self._ids), dtype=np.float32)

    def add(self, token: int) -> None:
        """Counts one more token of the answer."""
        place = self._places.setdefault(token, len(self._places))
        if place == len(self._ids):
            self._ids = np.concatenate([self._ids, np.zeros_like(self._ids)])
            self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)])
        self._ids[place] = token
        self._counts[place] += 1

    @property
    def ids(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """The tokens, each once."""
        return self._ids[: len(self._places)]

    @property
    def counts(self) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        """How often the answer has each of `ids`; 0 where only the prompt has it."""
        return self._counts[: len(self._places)]


def penalise(scores: torch.Tensor, rows: Sequence[int], tallies: Sequence[Tally]) -> None:
    """Changes, in place, the scores of the tallied tokens in `rows` of `scores`, float32 [n, vocabulary]."""
    lengths = [len(tally.ids) for tally in tallies]
    if not any(lengths):
        return
    columns = np.array([(t.penalties.repetition, t.penalties.presence, t.penalties.frequency) for t in tallies])
    columns[:, 0] = columns[:, 0].clip(min=_LEAST_REPETITION)

    def column(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.repeat(values, lengths)).to(scores.device)

    row = column(np.array(rows))
    token = torch.from_numpy(np.concatenate([tally.ids for tally in tallies])).to(scores.device)
    count = torch.from_numpy(np.concatenate([tally.counts for tally in tallies])).to(scores.device)
    repetition, presence, frequency = (column(values) for values in columns.T.astype(np.float32))
    score = scores[row, token]
    score = torch.where(score < 0, score * repetition, score / repetition)
    score = score - presence * (count > 0) - frequency * count
    scores[row, token] = score.clamp(-_MOST_SCORE, _MOST_SCORE)
