"""Greedy tokens equal those of transformers' `generate`, for every architecture and however they are scheduled."""

from __future__ import annotations

import copy
import random
from functools import cache, partial
from typing import Any

import pytest

from polyroute.backends.local.worker.forward import fit, kv_cache
from tests import tiny
from tests.stepping import Run, greedy, vocabulary

COUNT = 18
_chance = random.Random(0)
PROMPTS = [[_chance.randrange(2, 680) for _ in range(length)] for length in (5, 17, 40, 61, 33, 90)]


@cache
def references(name: str) -> tuple[Any, dict[int, tuple[list[int], list[int]]]]:
    """The model, and prompts with their right answers, by ID: from 10 on, those that begin like others."""
    model = tiny.build(name, len(vocabulary().tokenizer))
    asked = {id: (prompt, greedy(model, prompt, COUNT)) for id, prompt in enumerate(PROMPTS)}
    turns = [asked[3][0] + asked[3][1] + PROMPTS[0], PROMPTS[5][:70] + PROMPTS[1], PROMPTS[5][:21] + PROMPTS[0]]
    return model, asked | {id: (prompt, greedy(model, prompt, COUNT)) for id, prompt in enumerate(turns, 10)}


@pytest.fixture
def small_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slots of few tokens, so that short sequences outgrow them."""
    monkeypatch.setattr(fit, "KVCache", partial(kv_cache.KVCache, first_capacity=16))
    monkeypatch.setattr(kv_cache, "_ROOM_AHEAD", 4)


def wrong(name: str, run: Run) -> dict[int, list[int]]:
    """What has been answered otherwise than by `generate`, by ID."""
    _, asked = references(name)
    return {id: tokens for id, tokens in run.tokens.items() if tokens != asked[id % 100][1]}


def start(name: str, **options: Any) -> Run:
    model, _ = references(name)
    return Run(copy.deepcopy(model), **({"max_batch_tokens": 24, "max_sequences": 4} | options))


def tight_bytes(run: Run, sequences: int, tokens: int) -> int:
    """Bytes that hold so many sequences with so many tokens in all."""
    memory: Any = run.engine._forward.memory
    return int(getattr(memory, "_sequence_bytes", 0) * sequences + tokens * memory._token_bytes)


def mixed(name: str, **options: Any) -> Run:
    """Joins in the middle, one that leaves, prompts in chunks, more sequences than places."""
    run, (_, asked) = start(name, **options), references(name)
    for id in range(3):
        run.submit(id, asked[id][0], COUNT)
        run.step(2)
    run.submit(100, asked[0][0], COUNT)
    run.submit(3, asked[3][0], COUNT)
    run.step(4)
    run.cancel(100)
    for id in (4, 5):
        run.submit(id, asked[id][0], COUNT)
    run.step(2)
    return run


@pytest.mark.parametrize("name", tiny.ARCHITECTURES)
def test_greedy_tokens_equal_generate(name: str, small_slots: None) -> None:
    _, asked = references(name)
    assert len({token for _, answer in asked.values() for token in answer}) > 40  # else equality would prove little

    run = mixed(name)
    assert run.engine.path == tiny.ARCHITECTURES[name].path
    run.drain()
    assert wrong(name, run) == {}
    assert set(run.tokens) == set(range(6))

    for id in (10, 11, 12):  # they begin as the first ones did
        run.submit(id, asked[id][0], COUNT)
    run.drain()
    run.submit(103, asked[3][0], COUNT)  # alone
    run.drain()
    assert wrong(name, run) == {}
    found = {id: finish.cached_prompt_tokens for id, finish in run.finished.items() if id >= 10}
    assert found == ({10: 78, 11: 70, 12: 21, 103: 60} if run.engine.path == "packed" else dict.fromkeys(found, 0))

    run = mixed(name, kv_cache_bytes=tight_bytes(run, 2, 150))
    run.drain()
    assert run.engine.preemptions > 0
    assert wrong(name, run) == {}
