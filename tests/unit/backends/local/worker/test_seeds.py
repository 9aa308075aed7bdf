"""A seed gives the same text alone, in a large batch, after preemption and in another process."""

from __future__ import annotations

import copy
import json
import os
import random
import subprocess
import sys
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest

from polyroute.backends.local.worker.forward import fit, kv_cache
from tests import tiny
from tests.stepping import Run, vocabulary

_chance = random.Random(11)
PROMPT = [_chance.randrange(2, 680) for _ in range(20)]
SAMPLINGS: list[dict[str, Any]] = [
    {"seed": 1, "temperature": 1.0},
    {"seed": 2, "temperature": 1.5, "top_k": 50, "top_p": 0.95, "min_p": 0.01},
    {"seed": 3, "temperature": 0.9, "repetition_penalty": 1.3, "presence_penalty": 0.5, "frequency_penalty": 0.2},
]
COUNT = 24
PATHS = {"packed": "llama", "apart": "bloom"}


@cache
def model(path: str) -> Any:
    return tiny.build(PATHS[path], len(vocabulary().tokenizer), scale=1.5)


def start(path: str, **options: Any) -> Run:
    run = Run(copy.deepcopy(model(path)), **options)
    assert run.engine.path == path
    return run


def alone(path: str) -> list[list[int]]:
    """The tokens for each of `SAMPLINGS`, one after the other."""
    run = start(path)
    for id, sampling in enumerate(SAMPLINGS):
        run.submit(id, PROMPT, COUNT, **sampling)
        run.drain()
    return [run.tokens[id] for id in range(len(SAMPLINGS))]


@pytest.mark.parametrize("path", PATHS)
def test_in_a_batch_of_32(path: str) -> None:
    run = start(path, max_batch_tokens=96)
    for id in range(100, 129):
        others = [_chance.randrange(2, 680) for _ in range(_chance.randrange(3, 30))]
        run.submit(id, others, COUNT + id % 7, temperature=1.0 if id % 2 else 0.0, top_k=id % 40, seed=id)
        if id == 114:
            run.step(3)
            for seeded, sampling in enumerate(SAMPLINGS):
                run.submit(seeded, PROMPT, COUNT, **sampling)
    run.drain()
    assert [run.tokens[id] for id in range(len(SAMPLINGS))] == alone(path)


@pytest.mark.parametrize("path", PATHS)
def test_after_preemption(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "KVCache", partial(kv_cache.KVCache, first_capacity=16))
    monkeypatch.setattr(kv_cache, "_ROOM_AHEAD", 4)
    memory: Any = start(path).engine._forward.memory
    run = start(path, kv_cache_bytes=110 * memory._token_bytes)
    for id, sampling in enumerate(SAMPLINGS):
        run.submit(id, PROMPT, COUNT, **sampling)
    run.drain()
    assert run.engine.preemptions > 0
    assert [run.tokens[id] for id in range(len(SAMPLINGS))] == alone(path)


def test_in_another_process() -> None:
    root = Path(__file__).parents[5]
    script = (
        "import importlib.util, json, sys; spec = importlib.util.spec_from_file_location('seeds', sys.argv[1]);"
        "seeds = importlib.util.module_from_spec(spec); spec.loader.exec_module(seeds);"
        "print(json.dumps(seeds.alone('packed')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, __file__],
        cwd=root,
        env=os.environ | {"PYTHONHASHSEED": "77", "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
        timeout=170,
    )
    assert json.loads(done.stdout.splitlines()[-1]) == alone("packed")


def test_another_seed_gives_another_text() -> None:
    run = start("packed")
    for id in range(8):
        run.submit(id, PROMPT, COUNT, seed=id, temperature=1.0)
    run.drain()
    assert len({tuple(tokens) for tokens in run.tokens.values()}) == 8
