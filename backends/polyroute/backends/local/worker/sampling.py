"""Chooses the next tokens of the answers in a step, all at once: penalties, constraint, temperature, truncation, draw.

The order and the meaning are those of transformers' `generate`; the random numbers are not (docs/decisions/008).
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from polyroute.backends.local.worker.constraint import Constraint, mask
from polyroute.backends.local.worker.draw import Truncation, draw, settle
from polyroute.backends.local.worker.noise import key
from polyroute.backends.local.worker.penalties import Penalties, Tally, penalise
from polyroute.core.request import Sampling

_TOP_K = 50  # of `generate`, where neither the request nor the model sets one
_LEAST_TEMPERATURE = 1e-5  # as good as greedy; less would take scores out of float32's range


@dataclass(frozen=True, slots=True)
class SamplingDefaults:
    """What the model's own generation configuration says, for whatever a request leaves unset."""

    sample: bool = False
    temperature: float = 1.0
    top_k: int = _TOP_K
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    max_new_tokens: int | None = None

    @classmethod
    def of(cls, generation: Any) -> SamplingDefaults:
        """Reads a transformers `GenerationConfig`."""

        def value(name: str, otherwise: Any) -> Any:
            found = getattr(generation, name, None)
            return otherwise if found is None else found

        return cls(
            sample=bool(value("do_sample", False)),
            temperature=float(value("temperature", 1.0)),
            top_k=int(value("top_k", _TOP_K)),
            top_p=float(value("top_p", 1.0)),
            min_p=float(value("min_p", 0.0)),
            repetition_penalty=float(value("repetition_penalty", 1.0)),
            max_new_tokens=value("max_new_tokens", None),
        )

    def told(self) -> Sampling:
        """The same as a request would have to say it."""
        return Sampling(
            max_tokens=self.max_new_tokens,
            temperature=self.temperature if self.sample else 0.0,
            top_p=self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
        )


class Sampler:
    """How one answer's tokens are chosen, and what that hangs on besides the scores: it outlives a preemption.

    `seed` is the seed in use; for a greedy answer, whatever the request gave.
    """

    def __init__(
        self,
        asked: Sampling,
        defaults: SamplingDefaults,
        prompt: Sequence[int],
        constraint: Constraint | None = None,
    ) -> None:
        self.constraint = constraint
        temperature = asked.temperature
        if temperature is None:
            temperature = defaults.temperature if defaults.sample else 0.0
        self.truncation = None if temperature == 0 else _truncation(asked, defaults, temperature)
        self.seed = asked.seed
        if self.seed is None and self.truncation is not None:
            self.seed = secrets.randbits(32)
        penalties = Penalties(
            _or(asked.repetition_penalty, defaults.repetition_penalty),
            asked.presence_penalty or 0.0,
            asked.frequency_penalty or 0.0,
        )
        self.tally = None if penalties.none else Tally(penalties, prompt)
        self._draws = 0

    @property
    def key(self) -> int:
        """Stands for the noise of the next draw."""
        return key(self.seed or 0, self._draws)

    def take(self, token: int) -> None:
        """Notes which token was chosen."""
        self._draws += 1
        if self.tally is not None:
            self.tally.add(token)
        if self.constraint is not None:
            self.constraint.take(token)


def choose(logits: torch.Tensor, samplers: Sequence[Sampler]) -> list[int]:
    """The next token of each row of `logits`, which are the model's own, float32 [n, vocabulary], and stay as they are.

    A row has -1 where no token can be chosen: its logits are not numbers, or its constraint has failed. What is chosen
    for a row hangs on nothing but its logits and its sampler. The device is waited for once, except for rare rows.
    """
    scores = _edited(logits, samplers)
    drawn = [(row, sampler) for row, sampler in enumerate(samplers) if sampler.truncation is not None]
    if not drawn:
        tokens = _greatest(scores).tolist()
    else:
        truncations = [sampler.truncation for _, sampler in drawn if sampler.truncation is not None]
        keys = [sampler.key for _, sampler in drawn]
        rows = [row for row, _ in drawn]
        if len(rows) == len(samplers):
            tokens = settle(scores, truncations, keys, draw(scores, truncations, keys).tolist())
        else:
            index = torch.tensor(rows, device=scores.device)
            part = scores[index]
            both = torch.cat([_greatest(scores), draw(part, truncations, keys)]).tolist()
            tokens = both[: len(samplers)]
            for row, token in zip(rows, settle(part, truncations, keys, both[len(samplers) :]), strict=True):
                tokens[row] = token
    for sampler, token in zip(samplers, tokens, strict=True):
        if token >= 0:
            sampler.take(token)
    return tokens


def _edited(logits: torch.Tensor, samplers: Sequence[Sampler]) -> torch.Tensor:
    """The logits with penalties taken off and forbidden tokens at -inf: themselves where nobody wants either."""
    tallied = [(row, sampler.tally) for row, sampler in enumerate(samplers) if sampler.tally is not None]
    bound = [(row, sampler.constraint) for row, sampler in enumerate(samplers) if sampler.constraint is not None]
    if not tallied and not bound:
        return logits
    scores = logits.clone()
    if tallied:
        penalise(scores, [row for row, _ in tallied], [tally for _, tally in tallied])
    if bound:
        mask(scores, [row for row, _ in bound], [constraint for _, constraint in bound])
    return scores


def _greatest(scores: torch.Tensor) -> torch.Tensor:
    """The ID of the greatest score of each row, the lowest of equals, int64 [n]; -1 where the greatest is no number."""
    on_cpu = scores.device.type == "cpu"  # where numpy is ten times as fast as torch
    ids = torch.from_numpy(scores.numpy().argmax(axis=1)) if on_cpu else scores.argmax(dim=1)
    return torch.where(scores.gather(1, ids[:, None]).flatten().isfinite(), ids, -1)


def _truncation(asked: Sampling, defaults: SamplingDefaults, temperature: float) -> Truncation:
    return Truncation(
        max(float(temperature), _LEAST_TEMPERATURE),
        int(_or(asked.top_k, defaults.top_k)),
        float(_or(asked.top_p, defaults.top_p)),
        float(_or(asked.min_p, defaults.min_p)),
    )


def _or(asked: float | None, default: float) -> float:
    return default if asked is None else asked
