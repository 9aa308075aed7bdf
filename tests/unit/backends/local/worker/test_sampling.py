"""Tokens are drawn as often as transformers' own logits processors say, and by nothing but logits and seed."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from msgspec.structs import replace
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from polyroute.backends.local.worker import draw
from polyroute.backends.local.worker.sampling import Sampler, SamplingDefaults, choose
from polyroute.core.request import Sampling

DRAWS = 8000
CHANCE = 1e-4  # of a false alarm, if the seeds were others

PARAMETERS: dict[str, dict[str, Any]] = {
    "plain": {"top_k": 0},
    "temperature": {"temperature": 0.6, "top_k": 0},
    "hot": {"temperature": 1.7, "top_k": 0},
    "top_k": {"top_k": 7},
    "a wide top_k": {"top_k": 300},
    "top_p": {"top_k": 0, "top_p": 0.8},
    "a wide top_p": {"temperature": 1.5, "top_k": 0, "top_p": 0.97},
    "min_p": {"temperature": 1.2, "top_k": 0, "min_p": 0.01},
    "the usual": {"temperature": 0.8, "top_k": 50, "top_p": 0.9},
    "all": {"temperature": 1.4, "top_k": 40, "top_p": 0.95, "min_p": 0.02, "repetition_penalty": 1.3},
    "penalties": {"top_k": 0, "repetition_penalty": 1.5, "presence_penalty": 0.8, "frequency_penalty": 0.4},
}
VOCABULARIES = {"small": (60, 1.5), "middling": (700, 2.0), "large": (3000, 3.0)}

PROMPT = [1, 2, 3, 4, 5, 5]
ANSWER = [2, 7, 7, 7, 8]


def row(vocabulary: int, scale: float) -> torch.Tensor:
    """Logits whose likeliest tokens the penalties hit."""
    logits = torch.randn(vocabulary, generator=torch.Generator().manual_seed(vocabulary)) * scale
    hit = torch.tensor([2, 7, 5, 8, 1, 3, 4])
    logits[hit] = logits.max() + 4.0 - 0.15 * torch.arange(len(hit))
    return logits


def probabilities(logits: torch.Tensor, asked: Sampling) -> torch.Tensor:
    """By transformers, and for the penalties that it has not by their definition in OpenAI's API reference."""
    scores = logits[None].clone()
    if asked.repetition_penalty:
        scores = RepetitionPenaltyLogitsProcessor(asked.repetition_penalty)(torch.tensor([PROMPT + ANSWER]), scores)
    for token in set(ANSWER):
        scores[0, token] -= asked.presence_penalty or 0.0
        scores[0, token] -= (asked.frequency_penalty or 0.0) * ANSWER.count(token)
    warpers: list[Any] = [TemperatureLogitsWarper(asked.temperature)] if asked.temperature else []
    warpers += [TopKLogitsWarper(asked.top_k)] if asked.top_k else []
    warpers += [TopPLogitsWarper(asked.top_p)] if asked.top_p else []
    warpers += [MinPLogitsWarper(asked.min_p)] if asked.min_p else []
    for warper in warpers:
        scores = warper(None, scores)
    return scores[0].double().softmax(dim=-1)


def drawn(logits: torch.Tensor, asked: Sampling, count: int = DRAWS) -> list[int]:
    """The token of each of `count` seeds, after `ANSWER`."""
    tokens: list[int] = []
    for first in range(0, count, 500):
        samplers = [made(replace(asked, seed=seed)) for seed in range(first, first + 500)]
        tokens += choose(logits.repeat(500, 1), samplers)
    return tokens


def made(asked: Sampling) -> Sampler:
    sampler = Sampler(asked, SamplingDefaults(), PROMPT)
    for token in ANSWER:
        sampler.take(token)
    return sampler


def fits(tokens: list[int], wanted: torch.Tensor) -> bool:
    """Pearson's chi-square test, over at most 40 groups of tokens that are about as likely as each other."""
    counts = torch.bincount(torch.tensor(tokens), minlength=len(wanted)).double()
    if bool((counts[wanted == 0] > 0).any()):
        return False
    order = wanted.argsort(descending=True)
    groups: list[list[float]] = [[0.0, 0.0]]
    for observed, expected in zip(counts[order].tolist(), (wanted[order] * len(tokens)).tolist(), strict=True):
        if groups[-1][1] >= len(tokens) / 40:
            groups.append([0.0, 0.0])
        groups[-1][0] += observed
        groups[-1][1] += expected
    if len(groups) > 1 and groups[-1][1] < 5:
        observed, expected = groups.pop()
        groups[-1][0] += observed
        groups[-1][1] += expected
    statistic = sum((observed - expected) ** 2 / expected for observed, expected in groups)
    freedom = torch.tensor(max(1, len(groups) - 1) / 2, dtype=torch.float64)
    return float(torch.special.gammaincc(freedom, torch.tensor(statistic / 2, dtype=torch.float64))) > CHANCE


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@pytest.mark.parametrize("parameters", PARAMETERS)
def test_tokens_follow_the_exact_probabilities(parameters: str, vocabulary: str) -> None:
    logits = row(*VOCABULARIES[vocabulary])
    asked = Sampling(**({"temperature": 1.0} | PARAMETERS[parameters]))
    assert fits(drawn(logits, asked), probabilities(logits, asked))


@pytest.mark.parametrize(
    ("parameters", "fault"),
    [
        ("top_p", {"top_p": 0.78}),
        ("a wide top_p", {"top_p": 0.95}),
        ("top_k", {"top_k": 8}),
        ("top_k", {"top_k": 6}),
        ("min_p", {"min_p": 0.02}),
        ("temperature", {"temperature": 0.68}),
        ("penalties", {"repetition_penalty": None}),
        ("penalties", {"presence_penalty": None}),
        ("penalties", {"frequency_penalty": None}),
        ("penalties", {"frequency_penalty": 0.2}),
    ],
)
def test_the_test_of_the_distribution_notices_faults(parameters: str, fault: dict[str, Any]) -> None:
    logits = row(*VOCABULARIES["middling"])
    asked = Sampling(**({"temperature": 1.0} | PARAMETERS[parameters]))
    assert not fits(drawn(logits, replace(asked, **fault)), probabilities(logits, asked))


def test_the_draws_of_one_seed_are_independent() -> None:
    """Each pair of two successive tokens comes as often as the product of their probabilities says."""
    logits = torch.tensor([0.0, 0.3, -0.5, 1.0, 0.8, -1.0])
    sampler = Sampler(Sampling(temperature=1.0, top_k=0, seed=11), SamplingDefaults(), [])
    tokens = [choose(logits[None], [sampler])[0] for _ in range(3000)]
    pairs = [6 * first + second for first, second in zip(tokens[::2], tokens[1::2], strict=True)]
    wanted = logits.double().softmax(dim=-1)
    assert fits(pairs, torch.outer(wanted, wanted).flatten())


@pytest.mark.parametrize("parameters", PARAMETERS)
@pytest.mark.parametrize("vocabulary", ["small", "large"])
def test_a_choice_hangs_on_nothing_else_in_the_batch(parameters: str, vocabulary: str) -> None:
    logits = row(*VOCABULARIES[vocabulary])
    asked = [Sampling(**({"temperature": 1.0} | PARAMETERS[name])) for name in PARAMETERS]
    asked += [Sampling(temperature=0), Sampling(temperature=1.0, top_k=2000)]
    mine = Sampling(**({"temperature": 1.0} | PARAMETERS[parameters]))
    for seed in range(10):
        alone = choose(logits[None], [made(replace(mine, seed=seed))])
        others = [made(replace(asked[i % len(asked)], seed=i)) for i in range(31)]
        batch = torch.cat([torch.randn(31, len(logits), generator=torch.Generator().manual_seed(seed)), logits[None]])
        assert choose(batch, [*others, made(replace(mine, seed=seed))])[-1:] == alone


def test_a_choice_is_the_same_in_another_process() -> None:
    program = (
        "import torch; from polyroute.backends.local.worker.sampling import *; "
        "s = Sampler(Sampling(temperature=1.3, top_k=0, seed=77), SamplingDefaults(), []); "
        "print([choose(torch.arange(500.0)[None] / 100, [s])[0] for _ in range(8)])"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout
    sampler = Sampler(Sampling(temperature=1.3, top_k=0, seed=77), SamplingDefaults(), [])
    tokens = [choose(torch.arange(500.0)[None] / 100, [sampler])[0] for _ in range(8)]
    assert told == f"{tokens}\n".encode()
    assert len(set(tokens)) > 4


@pytest.mark.parametrize("parameters", ["plain", "the usual", "min_p"])
def test_rounding_of_the_logits_rarely_changes_a_choice(parameters: str) -> None:
    """As rarely as it must, but for a small factor: the tokens' probabilities differ by 0.2% or so here."""
    logits = row(*VOCABULARIES["large"])
    moved = logits + 0.002 * torch.randn(len(logits), generator=torch.Generator().manual_seed(1))
    asked = Sampling(**({"temperature": 1.0} | PARAMETERS[parameters]))
    pairs = list(zip(drawn(logits, asked, 4000), drawn(moved, asked, 4000), strict=True))
    assert sum(before != after for before, after in pairs) < 0.01 * len(pairs)


@pytest.mark.parametrize("sampling", [Sampling(temperature=0), Sampling(temperature=1.0, top_k=1, seed=3)])
def test_greedy_takes_the_greatest_beside_any_others(sampling: Sampling) -> None:
    logits = torch.randn((20, 1000), generator=torch.Generator().manual_seed(0))
    others = Sampling(temperature=1.0, seed=1)
    samplers = [Sampler(sampling if i % 2 else others, SamplingDefaults(), []) for i in range(20)]
    assert choose(logits, samplers)[1::2] == logits.argmax(dim=1).tolist()[1::2]


def test_equal_scores_at_a_boundary_stay_together() -> None:
    """As top_k does in transformers; 600 equal ones are more than are looked at first."""
    logits = torch.full((2000,), -10.0)
    logits[100:700] = 3.0
    for asked in (Sampling(temperature=1.0, top_k=5), Sampling(temperature=1.0, top_k=0, top_p=0.5)):
        tokens = drawn(logits, asked, 4000)
        assert min(tokens) >= 100
        assert max(tokens) < 700
        assert fits(tokens, torch.where(logits > 0, 1 / 600, 0.0).double())


@pytest.mark.parametrize(
    "asked", [Sampling(temperature=0), Sampling(temperature=1.0), Sampling(temperature=1.0, top_k=0)]
)
@pytest.mark.parametrize("bad", [math.nan, -math.inf, math.inf])
def test_logits_that_are_no_numbers_choose_nothing_and_harm_nobody(asked: Sampling, bad: float) -> None:
    logits = torch.randn((3, 400), generator=torch.Generator().manual_seed(0))
    samplers = [Sampler(replace(asked, seed=i), SamplingDefaults(), []) for i in range(3)]
    wanted = choose(logits, samplers)
    logits[1] = bad
    samplers = [Sampler(replace(asked, seed=i), SamplingDefaults(), []) for i in range(3)]
    assert choose(logits, samplers) == [wanted[0], -1, wanted[2]]


def test_forbidden_tokens_are_never_drawn() -> None:
    logits = torch.full((5000,), -math.inf)
    logits[[7, 4000]] = torch.tensor([0.0, 1.0])
    for asked in (Sampling(temperature=1.0, top_k=0), Sampling(temperature=1.0), Sampling(temperature=2.0, top_p=0.99)):
        assert set(drawn(logits, asked, 500)) == {7, 4000}


def test_logits_stay_as_they_are() -> None:
    logits = row(700, 2.0).repeat(3, 1)
    before = logits.clone()
    samplers = [made(Sampling(temperature=t, repetition_penalty=1.5, frequency_penalty=0.3)) for t in (0.0, 1.0, 2.0)]
    choose(logits, samplers)
    assert torch.equal(logits, before)


@pytest.mark.parametrize("vocabulary", [700, 3000, 4099])
def test_the_likeliest_are_the_same_by_stripes_as_by_topk(vocabulary: int) -> None:
    scores = torch.randn((5, vocabulary), generator=torch.Generator().manual_seed(0))
    for width in (64, 256):
        values, ids = draw._likeliest(scores, width)
        assert torch.equal(values, scores.topk(width, dim=1).values)
        assert torch.equal(scores.gather(1, ids), values)


def test_no_row_is_sorted_while_its_head_holds_the_mass(monkeypatch: pytest.MonkeyPatch) -> None:
    sorts: list[int] = []
    real: Callable[[torch.Tensor], torch.Tensor] = draw._descending
    monkeypatch.setattr(draw, "_descending", lambda weights: (sorts.append(len(weights)), real(weights))[1])
    peaked, flat = torch.arange(5000.0).neg(), torch.zeros(5000)
    samplers = [
        Sampler(Sampling(temperature=1.0, top_k=0, top_p=0.9, seed=i), SamplingDefaults(), []) for i in range(3)
    ]
    choose(torch.stack([peaked, peaked, peaked]), samplers)
    assert not sorts
    choose(torch.stack([peaked, flat, peaked]), samplers)
    assert sorts == [1]
