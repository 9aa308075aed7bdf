"""Chooses the next token of one answer, by the order and the arithmetic of transformers' `generate`."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import LogitsProcessor, MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from polyroute.core.request import Sampling

_TOP_K = 50  # of `generate`, where neither the request nor the model sets one
_LEAST_TEMPERATURE = 1e-5  # as good as greedy; less would take scores out of float32's range
_MOST_SCORE = 1e30  # what a tiny penalty may blow scores up to, so that a temperature still has room


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


def choose(logits: torch.Tensor, samplers: Sequence[Sampler]) -> list[int]:
    """The next token of each row of `logits`, which are the model's own, float32 [n, vocabulary]."""
    return [sampler.choose(logits[row : row + 1]) for row, sampler in enumerate(samplers)]


class Sampler:
    """Holds one answer's random state and the tokens that its penalties count.

    `seed` is the seed in use; for a greedy answer, whatever the request gave. All tensors are [1, vocabulary] on the
    device of the logits.
    """

    def __init__(self, asked: Sampling, defaults: SamplingDefaults, prompt: Sequence[int]) -> None:
        temperature = asked.temperature
        if temperature is None:
            temperature = defaults.temperature if defaults.sample else 0.0
        self.greedy = temperature == 0
        self.seed = asked.seed
        if self.seed is None and not self.greedy:
            self.seed = secrets.randbits(32)
        self._repetition = _or(asked.repetition_penalty, defaults.repetition_penalty)
        self._presence = asked.presence_penalty or 0.0
        self._frequency = asked.frequency_penalty or 0.0
        self._warpers = [] if self.greedy else _warpers(asked, defaults, temperature)
        self._generator: torch.Generator | None = None
        self._prompt = prompt if self._repetition != 1.0 else ()
        self._seen: torch.Tensor | None = None
        self._counts: torch.Tensor | None = None

    def choose(self, logits: torch.Tensor) -> int:
        """The next token. `logits`, float32 [1, vocabulary], are the model's own and stay as they are."""
        scores = self._penalise(logits)
        if self.greedy:
            token = int(scores.argmax(dim=-1))
        else:
            scores = scores.clamp(-_MOST_SCORE, _MOST_SCORE) if self._repetition != 1.0 else scores
            for warper in self._warpers:
                scores = warper(None, scores)
            if self._generator is None:
                self._generator = torch.Generator(logits.device).manual_seed(self.seed or 0)
            token = int(torch.multinomial(scores.softmax(dim=-1), 1, generator=self._generator))
        if self._seen is not None:
            self._seen[0, token] = True
        if self._counts is not None:
            self._counts[0, token] += 1
        return token

    def _penalise(self, logits: torch.Tensor) -> torch.Tensor:
        scores = logits
        if self._repetition != 1.0:
            if self._seen is None:
                self._seen = torch.zeros_like(logits, dtype=torch.bool)
                self._seen[0, torch.tensor(sorted(set(self._prompt)), device=logits.device)] = True
            penalised = torch.where(scores < 0, scores * self._repetition, scores / self._repetition)
            scores = torch.where(self._seen, penalised, scores)
        if self._presence or self._frequency:
            if self._counts is None:
                self._counts = torch.zeros_like(logits)
            scores = scores - self._presence * (self._counts > 0) - self._frequency * self._counts
        return scores


def _warpers(asked: Sampling, defaults: SamplingDefaults, temperature: float) -> list[LogitsProcessor]:
    warpers: list[LogitsProcessor] = []
    if temperature != 1.0:
        warpers.append(TemperatureLogitsWarper(max(float(temperature), _LEAST_TEMPERATURE)))
    if top_k := _or(asked.top_k, defaults.top_k):
        warpers.append(TopKLogitsWarper(int(top_k)))
    if (top_p := _or(asked.top_p, defaults.top_p)) < 1.0:
        warpers.append(TopPLogitsWarper(top_p))
    if min_p := _or(asked.min_p, defaults.min_p):
        warpers.append(MinPLogitsWarper(min_p))
    return warpers


def _or(asked: float | None, default: float) -> float:
    return default if asked is None else asked
