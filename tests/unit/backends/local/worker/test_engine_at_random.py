"""The whole engine over a real, very small model: whatever happens around it, an answer is what it would be alone."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from polyroute.backends.local.worker.forward import fit, kv_cache
from tests import tiny
from tests.stepping import Run, audit, greedy, vocabulary

MODELS = {"packed": "llama", "apart": "gptj"}
SHAPES: dict[str, dict[str, Any]] = {
    "packed": {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1},
    "apart": {"n_embd": 16, "n_head": 2},
}
LAYERS = {"packed": "num_hidden_layers", "apart": "n_layer"}
COUNT = 20
_chance = random.Random(5)
_SHARED, _TAIL = ([_chance.randrange(2, 680) for _ in range(length)] for length in (60, 18))
PROMPTS = [
    _SHARED[:50],
    [*_SHARED[:50], 9, 8, 7],
    _SHARED[:30] + [5, 6, 7] * 5,
    _SHARED[:50] + _TAIL,
    _SHARED[:25] + _TAIL,
    _SHARED[:25] + _TAIL[:17] + [3],
    *([_chance.randrange(2, 680) for _ in range(length)] for length in (1, 3, 20, 45)),
]
SAMPLING: list[dict[str, Any]] = [{}, {"temperature": 1.0, "seed": 7}, {"temperature": 1.5, "seed": 8, "top_k": 20}]


@pytest.fixture(autouse=True, scope="module")
def small_slots() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "KVCache", partial(kv_cache.KVCache, first_capacity=16))
        patch.setattr(kv_cache, "_ROOM_AHEAD", 4)
        patch.setattr(kv_cache, "_UNIT", 10)  # of which the caps below are multiples
        yield


@cache
def model(path: str) -> Any:
    return tiny.build(MODELS[path], len(vocabulary().tokenizer), **SHAPES[path] | {LAYERS[path]: 1})


@cache
def start(path: str, kv_cache_bytes: int | None = None) -> Run:
    """An engine is dear to make, so each is used again: it must be empty, but for prefixes, when all have ended."""
    run = Run(copy.deepcopy(model(path)), max_sequences=5, max_batch_tokens=24, kv_cache_bytes=kv_cache_bytes)
    assert run.engine.path == path
    return run


@cache
def alone(path: str, prompt: int, sampling: int) -> list[int]:
    run, id = start(path), 1000 + 10 * prompt + sampling
    run.submit(id, PROMPTS[prompt], COUNT, **SAMPLING[sampling])
    run.drain()
    return run.tokens.pop(id)


@cache
def token_bytes(path: str) -> int:
    memory: Any = start(path).engine._forward.memory
    return int(memory._token_bytes)


class Machine(RuleBasedStateMachine):
    """Everything that can happen to an engine between two steps, in any order."""

    path: str

    @initialize(tokens=st.sampled_from([90, 130, 200, 320]))
    def begin(self, tokens: int) -> None:
        self.run_ = start(self.path, tokens * token_bytes(self.path))
        self.memory: Any = self.run_.engine._forward.memory
        while self.path == "packed" and self.memory.prefixes.evict():
            pass
        self.run_.tokens.clear()
        self.run_.finished.clear()
        self.asked: dict[int, tuple[int, int, int]] = {}
        self.alive: list[int] = []

    @rule(
        prompt=st.integers(0, len(PROMPTS) - 1), sampling=st.integers(0, len(SAMPLING) - 1), count=st.integers(1, COUNT)
    )
    def arrives(self, prompt: int, sampling: int, count: int) -> None:
        id = len(self.asked)
        self.asked[id] = (prompt, sampling, count)
        self.run_.submit(id, PROMPTS[prompt], count, **SAMPLING[sampling])
        self.alive.append(id)

    @precondition(lambda self: self.alive)
    @rule(number=st.integers(0, 100))
    def leaves(self, number: int) -> None:
        id = self.alive.pop(number % len(self.alive))
        self.run_.cancel(id)

    @precondition(lambda self: self.alive)
    @rule(number=st.integers(0, 100))
    def falls_behind(self, number: int) -> None:
        self.run_.engine.pause(self.alive[number % len(self.alive)])

    @precondition(lambda self: self.alive)
    @rule(number=st.integers(0, 100))
    def catches_up(self, number: int) -> None:
        self.run_.engine.resume(self.alive[number % len(self.alive)])

    @rule(times=st.integers(1, 12))
    def steps(self, times: int) -> None:
        for _ in range(times):
            self.step()

    def step(self) -> None:
        self.run_.step()
        self.check_memory()
        self.alive = [id for id in self.alive if id not in self.run_.finished]

    def check_memory(self) -> None:
        if self.path == "packed":
            audit(self.memory)
        else:
            assert self.memory.used_bytes <= self.memory.limit_bytes
            assert set(self.memory.caches) <= set(self.memory._reserved)

    def teardown(self) -> None:
        if not hasattr(self, "run_"):
            return
        for id in self.alive:
            self.run_.engine.resume(id)
        for _ in range(400):
            if not self.run_.engine.busy:
                break
            self.step()
        assert not self.alive
        assert not self.run_.rejected
        for id, tokens in self.run_.tokens.items():
            prompt, sampling, count = self.asked[id]
            assert tokens == alone(self.path, prompt, sampling)[:count]
        assert not (self.memory._places if self.path == "packed" else self.memory._reserved)


class Packed(Machine):
    path = "packed"


class Apart(Machine):
    path = "apart"


_SETTINGS = settings(stateful_step_count=25, deadline=None, derandomize=True)
TestPacked = Packed.TestCase
TestPacked.settings = settings(_SETTINGS, max_examples=80)
TestApart = Apart.TestCase
TestApart.settings = settings(_SETTINGS, max_examples=15)


@pytest.mark.parametrize("path", MODELS)
def test_the_load_above_is_tight_and_its_answers_vary(path: str) -> None:
    """What the machines rely upon: alone is as `generate` says, seeds matter, and caps make sequences give way."""
    tokens = [alone(path, prompt, sampling) for prompt in range(len(PROMPTS)) for sampling in range(len(SAMPLING))]
    assert len(set(map(tuple, tokens))) > 0.9 * len(tokens)
    assert [alone(path, i, 0) for i in range(len(PROMPTS))] == [greedy(model(path), p, COUNT) for p in PROMPTS]
    run = start(path, 130 * token_bytes(path))
    before = run.engine.preemptions
    for id in range(2000, 2004):
        run.submit(id, PROMPTS[8], COUNT)
    run.drain()
    assert run.engine.preemptions > before
    assert [run.tokens.pop(id) for id in range(2000, 2004)] == [alone(path, 8, 0)] * 4
