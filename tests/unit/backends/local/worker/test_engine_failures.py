"""A failure in a step ends those alone who cause it; the others' answers stay what they would have been."""

from __future__ import annotations

import copy
import random
from functools import cache
from typing import Any

import pytest
import torch

from polyroute.backends.local.worker.forward import attention
from polyroute.backends.local.worker.forward.turn import Turn
from tests import tiny
from tests.stepping import Run, greedy, vocabulary

_chance = random.Random(3)
PROMPTS = [[_chance.randrange(2, 680) for _ in range(length)] for length in (9, 20, 31)]
COUNT = 14
NO_SUCH_TOKEN = 10**6
PATHS = {"packed": "llama", "apart": "gptj"}


@cache
def model(path: str) -> Any:
    return tiny.build(PATHS[path], len(vocabulary().tokenizer))


@cache
def wanted(path: str) -> dict[int, list[int]]:
    return {id: greedy(model(path), prompt, COUNT) for id, prompt in enumerate(PROMPTS)}


def start(path: str) -> Run:
    run = Run(copy.deepcopy(model(path)), max_batch_tokens=64)
    assert run.engine.path == path
    return run


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("steps_before", [0, 1, 4])
@pytest.mark.parametrize("place", [0, 2])
def test_an_input_that_fails_ends_alone(path: str, steps_before: int, place: int) -> None:
    run = start(path)
    joining = [(id, PROMPTS[id]) for id in range(3)]
    joining.insert(place, (9, [5, NO_SUCH_TOKEN, 5]))
    for id, prompt in joining:
        run.submit(id, prompt, COUNT)
        run.step(steps_before)
    run.drain()
    assert run.tokens == wanted(path) | {9: []}
    assert {id: rejected.kind for id, rejected in run.rejected.items()} == {9: "failed"}


@pytest.mark.parametrize("path", PATHS)
def test_two_that_fail_in_one_step_both_end(path: str) -> None:
    run = start(path)
    run.submit(0, PROMPTS[0], COUNT)
    run.step(3)
    for id, prompt in ((8, [NO_SUCH_TOKEN]), (1, PROMPTS[1]), (9, [4, NO_SUCH_TOKEN]), (2, PROMPTS[2])):
        run.submit(id, prompt, COUNT)
    run.drain()
    assert run.tokens == wanted(path) | {8: [], 9: []}
    assert set(run.rejected) == {8, 9}


def break_forward(run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception, condition: Any) -> None:
    """The forward pass raises `error` after its work where `condition` holds for the turn."""
    forward: Any = run.engine._forward
    original = forward.run

    def run_turn(turn: Turn) -> torch.Tensor:
        logits = original(turn)
        if condition(turn):
            raise error
        return logits

    monkeypatch.setattr(forward, "run", run_turn)


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
    MemoryError(),
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda e: type(e).__name__)
def test_no_memory_for_a_step_ends_the_longest_prompt_only(
    path: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start(path)
    run.submit(0, PROMPTS[0], COUNT)
    run.step(3)
    break_forward(run, monkeypatch, error, lambda turn: sum(chunk.count for chunk in turn.chunks) > 40)
    for id, prompt in ((1, PROMPTS[1]), (9, PROMPTS[2] * 2), (2, PROMPTS[2])):
        run.submit(id, prompt[:60], COUNT)
    run.drain()
    assert run.tokens == wanted(path) | {9: []} or run.tokens == wanted(path) | {9: [], 2: []}
    assert {rejected.kind for rejected in run.rejected.values()} == {"out_of_memory"}
    assert 9 in run.rejected
    assert 1 not in run.rejected


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda e: type(e).__name__)
def test_no_memory_while_all_decode_ends_the_youngest_only(
    path: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start(path)
    for id in (2, 0, 1):
        run.submit(id, PROMPTS[id], COUNT)
    run.step(4)
    break_forward(run, monkeypatch, error, lambda turn: len(turn.decoding) == 3)
    run.drain()
    assert set(run.rejected) == {1}
    assert run.rejected[1].kind == "out_of_memory"
    assert {id: run.tokens[id] for id in (0, 2)} == {id: wanted(path)[id] for id in (0, 2)}


@pytest.mark.parametrize("path", PATHS)
def test_no_memory_in_the_midst_of_the_layers_ends_the_youngest_only(path: str) -> None:
    """The first one's cache has then taken its token in at one layer, and not at the next."""
    run = start(path)
    for id in (2, 0, 1):
        run.submit(id, PROMPTS[id], COUNT)
    run.step(4)
    loaded: Any = run.engine._forward
    layers = loaded._model.model.layers if path == "packed" else loaded._model.transformer.h

    def fail(*_: Any) -> None:
        hook.remove()
        raise torch.OutOfMemoryError("CUDA out of memory")

    hook = layers[1].register_forward_pre_hook(fail)
    run.drain()
    assert set(run.rejected) == {1}
    assert {id: run.tokens[id] for id in (0, 2)} == {id: wanted(path)[id] for id in (0, 2)}


@pytest.mark.parametrize("path", PATHS)
def test_what_fails_only_together_ends_all_of_them_and_nobody_after(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(path)
    for id in range(3):
        run.submit(id, PROMPTS[id], COUNT)
    run.step(4)
    break_forward(run, monkeypatch, RuntimeError("beside others only"), lambda turn: len(turn.members) > 1)
    run.step()
    assert {id: rejected.kind for id, rejected in run.rejected.items()} == dict.fromkeys(range(3), "failed")
    assert not run.engine.busy
    monkeypatch.undo()
    run.rejected.clear()
    for id in range(3):  # the same IDs once more
        run.submit(id, PROMPTS[id], COUNT)
    run.drain()
    assert run.tokens == wanted(path)


@pytest.mark.parametrize(("path", "compiled"), [("packed", True), ("packed", False), ("apart", False)])
def test_an_answer_of_numbers_that_are_none_leaves_nothing_to_others(
    path: str, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys and values that are not numbers are in no one's way when their slot has another owner."""
    if not compiled:
        monkeypatch.setattr(attention, "_compiled", lambda *_: None)
    poison = 7
    poisoned = copy.deepcopy(model(path))
    poisoned.get_input_embeddings().weight.data[poison] = float("nan")
    run = Run(poisoned, max_batch_tokens=256)
    assert run.engine.path == path
    prompts = [[token if token != poison else 6 for token in prompt] for prompt in PROMPTS]
    answers = {id: greedy(model(path), prompt, COUNT) for id, prompt in enumerate(prompts)}
    assert all(poison not in answer for answer in answers.values())
    for id in (8, 9):
        run.submit(id, [3] * 10 + [poison] * 50, COUNT)
    run.submit(0, prompts[0], COUNT)  # moves into the slot of one that failed
    run.step(2)
    for id in (1, 2):  # take the other ones; the last one is longer, so that the others are masked
        run.submit(id, prompts[id], COUNT)
    run.drain()
    assert {id: rejected.kind for id, rejected in run.rejected.items()} == {8: "failed", 9: "failed"}
    assert {id: run.tokens[id] for id in range(3)} == answers
