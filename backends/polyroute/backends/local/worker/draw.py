"""Draws one token a row from truncated distributions, all rows at once.

By the Gumbel-max trick (Gumbel, 1954; Maddison et al., 2014): of the tokens that survive truncation, the one with the
greatest `score + noise`. So a draw that is repeated with scores that rounding has moved a little is rarely another one,
and no row is sorted as long as the likeliest tokens are known to hold all that survive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from polyroute.backends.local.worker.noise import gumbel

NO_TOKEN: Final = -1
"""In place of a token, where none has a score or scores are not numbers."""

_OPEN: Final = -2  # more tokens may survive than were looked at
_WIDTHS: Final = (64, 256)  # how many of the likeliest are looked at
_STRIPES: Final = 8
_BLOCK: Final = 64
_ROWS: Final = 8  # whose whole vocabularies are worked on at a time, so that a CPU's cache holds them


@dataclass(frozen=True, slots=True)
class Truncation:
    """How one row is drawn from: scores are divided by `temperature`; then `top_k`, `top_p` and `min_p` truncate.

    They mean what transformers' `generate` takes them for, and 0, 1.0 and 0.0 switch them off. Equal scores are never
    parted, so a boundary does not hang on the order of a sort.
    """

    temperature: float
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0


def draw(scores: torch.Tensor, truncations: Sequence[Truncation], keys: Sequence[int]) -> torch.Tensor:
    """One token a row of `scores` (float32 [n, vocabulary]), int64 [n] on their device, which is not waited for.

    `keys` are `noise.key`s. A row may come out as `NO_TOKEN`, or as another negative number: then `settle` draws it.
    """
    groups: dict[int, list[int]] = {}
    for row, truncation in enumerate(truncations):
        groups.setdefault(_width(truncation, scores.shape[1]), []).append(row)
    if len(groups) == 1:
        return _draw(scores, truncations, keys, next(iter(groups)))
    tokens = torch.empty(len(truncations), dtype=torch.int64, device=scores.device)
    for width, rows in groups.items():
        index = torch.tensor(rows, device=scores.device)
        tokens[index] = _draw(scores[index], [truncations[row] for row in rows], [keys[row] for row in rows], width)
    return tokens


def settle(
    scores: torch.Tensor, truncations: Sequence[Truncation], keys: Sequence[int], tokens: list[int]
) -> list[int]:
    """`tokens` as `draw` gave them for the same arguments, with those rows drawn that it left open."""
    rows = [row for row, token in enumerate(tokens) if token == _OPEN]
    if not rows:
        return tokens
    index = torch.tensor(rows, device=scores.device)
    drawn = _draw(scores[index], [truncations[row] for row in rows], [keys[row] for row in rows], 0).tolist()
    settled = dict(zip(rows, drawn, strict=True))
    return [settled.get(row, token) for row, token in enumerate(tokens)]


def _draw(scores: torch.Tensor, truncations: Sequence[Truncation], keys: Sequence[int], width: int) -> torch.Tensor:
    """Looks at the `width` likeliest tokens of each row; 0 means all."""
    if width:
        return _Rows(scores, truncations, keys).draw(width)
    count = _ROWS if scores.device.type == "cpu" else len(keys)
    parts = [slice(first, first + count) for first in range(0, len(keys), count)]
    return torch.cat([_Rows(scores[part], truncations[part], keys[part]).draw_from_all() for part in parts])


class _Rows:
    """Rows to draw from, float32 [n, vocabulary], with their parameters as columns, float64 [n, 1] each."""

    def __init__(self, scores: torch.Tensor, truncations: Sequence[Truncation], keys: Sequence[int]) -> None:
        vocabulary = scores.shape[1]
        self._scores = scores
        self._some_temperature = any(t.temperature != 1.0 for t in truncations)
        self._some_top_k = any(0 < t.top_k < vocabulary for t in truncations)
        self._some_top_p = any(t.top_p < 1.0 for t in truncations)
        self._some_min_p = any(t.min_p for t in truncations)
        self._all_top_k = all(0 < t.top_k < vocabulary for t in truncations)
        columns = torch.tensor(
            [(t.temperature, min(t.top_k or vocabulary, vocabulary), t.top_p, t.min_p) for t in truncations],
            dtype=torch.float64,
        ).to(scores.device)
        self._temperature, self._top_k, self._top_p, self._min_p = torch.split(columns, 1, dim=1)
        self._keys = torch.tensor(keys).to(scores.device)[:, None]

    def draw(self, width: int) -> torch.Tensor:
        """Int64 [n], by the `width` likeliest tokens of each row."""
        head, ids = _likeliest(self._scores, width)
        values = (head.double() - head[:, :1]) / self._temperature
        within = self._top_k <= width
        weights = values.exp()
        least = torch.zeros_like(self._temperature)
        if self._some_top_k:
            least = torch.where(within, weights.gather(1, self._top_k.clamp(1, width).long() - 1), least)
        if self._some_top_p:
            surviving = torch.where(weights >= least, weights, 0.0)
            reached = surviving.cumsum(dim=1)
            total = reached[:, -1:]
            if not self._all_top_k:
                total = torch.where(within, total, 1.0 / self._weights().gather(1, ids[:, :1]))
            cut = (reached - surviving < self._top_p * total).sum(dim=1, keepdim=True) - 1
            least = torch.where(self._top_p < 1.0, weights.gather(1, cut.clamp(min=0)), least)
        if self._some_min_p:
            least = torch.maximum(least, self._min_p)
        noisy = torch.where((weights >= least) & (weights > 0.0), values + gumbel(self._keys, ids), -torch.inf)
        tokens = ids.gather(1, noisy.argmax(dim=1, keepdim=True))
        last = weights[:, -1:]
        tokens = torch.where((last >= least) & (last > 0.0), _OPEN, tokens)
        return torch.where(head[:, :1].isfinite(), tokens, NO_TOKEN).flatten()

    def draw_from_all(self) -> torch.Tensor:
        """Int64 [n], whatever survives: first a block of tokens is drawn by its weight, and then one of its tokens."""
        vocabulary = self._scores.shape[1]
        weights = self._weights()
        greatest = weights.amax(dim=1, keepdim=True)
        if self._some_top_k or self._some_top_p or self._some_min_p:
            least = self._least_of_all(weights, greatest)
            weights *= torch.ge(weights, least, out=torch.empty_like(weights))  # far quicker than by a mask of bools
        even = vocabulary - vocabulary % _BLOCK
        sums = weights[:, :even].view(len(weights), -1, _BLOCK).sum(dim=2)
        if even < vocabulary:
            sums = torch.cat([sums, weights[:, even:].sum(dim=1, keepdim=True)], dim=1)
        blocks = torch.arange(sums.shape[1], device=sums.device)[None]
        block = (sums.double().log() + gumbel(self._keys, -1 - blocks)).argmax(dim=1, keepdim=True)
        ids = block * _BLOCK + torch.arange(_BLOCK, device=sums.device)
        noisy = weights.gather(1, ids.clamp(max=vocabulary - 1)).double().log() + gumbel(self._keys, ids)
        noisy = noisy.masked_fill(ids >= vocabulary, -torch.inf)
        tokens = ids.gather(1, noisy.argmax(dim=1, keepdim=True))
        return torch.where(greatest > 0.0, tokens, NO_TOKEN).flatten()

    def _least_of_all(self, weights: torch.Tensor, greatest: torch.Tensor) -> torch.Tensor:
        """The least of `weights`, float32 [n, vocabulary], that survives, float32 [n, 1]."""
        least = torch.zeros_like(greatest)
        if self._some_top_k or self._some_top_p:
            ordered = _descending(weights)
            least = ordered.gather(1, self._top_k.long() - 1)
            if self._some_top_p:
                reached = ordered.cumsum(dim=1)
                last = (ordered >= least).sum(dim=1, keepdim=True) - 1 if self._some_top_k else -1
                total = reached.gather(1, last) if isinstance(last, torch.Tensor) else reached[:, -1:]
                cut = torch.searchsorted(reached, self._top_p.float() * total)
                least = torch.where(self._top_p < 1.0, ordered.gather(1, cut), least)
        return torch.maximum(least, self._min_p.float() * greatest)

    def _weights(self) -> torch.Tensor:
        """The probabilities of all tokens before truncation, float32 [n, vocabulary]."""
        scaled = self._scores / self._temperature.float() if self._some_temperature else self._scores
        return scaled.softmax(dim=1)


def _width(truncation: Truncation, vocabulary: int) -> int:
    """How many of the likeliest tokens to look at: all that `top_k` leaves and one more, which tells whether the last
    has equals. 0 where nothing bounds their number."""
    bounded = 0 < truncation.top_k < vocabulary
    wanted = truncation.top_k + 1 if bounded else _WIDTHS[-1]
    if not bounded and truncation.top_p >= 1.0:
        return 0
    return next((width for width in _WIDTHS if wanted <= width < vocabulary), 0)


def _likeliest(scores: torch.Tensor, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `width` greatest scores of each row and their IDs, greatest first.

    On CPUs the row is seen as stripes laid over each other: the greatest are in those columns whose maxima are the
    greatest, and finding these costs half of what going through the row by `topk` does.
    """
    rows, vocabulary = scores.shape
    columns = vocabulary // _STRIPES
    if scores.device.type != "cpu" or columns < 8 * width:
        head = scores.topk(width, dim=1)
        return head.values, head.indices
    even = columns * _STRIPES
    tops = scores[:, :even].view(rows, _STRIPES, columns).amax(dim=1).topk(width, dim=1, sorted=False).indices
    ids = (tops[:, None, :] + torch.arange(0, even, columns)[None, :, None]).flatten(1)
    ids = torch.cat([ids, torch.arange(even, vocabulary).expand(rows, -1)], dim=1)
    head = scores.gather(1, ids).topk(width, dim=1)
    return head.values, ids.gather(1, head.indices)


def _descending(weights: torch.Tensor) -> torch.Tensor:
    """The rows of `weights` in order, greatest first; none is NaN."""
    if weights.device.type != "cpu":
        return weights.sort(dim=1, descending=True).values
    return torch.from_numpy(-np.sort(-weights.numpy(), axis=1))  # ten times as fast as torch's
