"""Greedy tokens equal those of transformers' `generate`, for every architecture and however they are scheduled."""

from __future__ import annotations

import copy
import dataclasses
import random
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import pytest
import torch

from polyroute.backends.local.worker import compute
from polyroute.backends.local.worker.compute.rows import compiled_rows
from polyroute.backends.local.worker.forward import attention, fit, kv_cache, packed, prefixes
from polyroute.backends.local.worker.forward.attention import Prefilling
from polyroute.backends.local.worker.forward.kv_cache import KVCache
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


WIDE: dict[str, Any] = {"hidden_size": 128, "head_dim": 32}  # whole vectors, whatever the processor


@pytest.mark.parametrize("name", ["llama", "mistral", "qwen2", "qwen2 with window"])
def test_compiled_layers_give_the_same_tokens(name: str, small_slots: None) -> None:
    model = tiny.build(name, len(vocabulary().tokenizer), **WIDE)
    answers = {id: greedy(model, PROMPTS[id], COUNT) for id in range(6)}
    compute.prepare(model, quantization=None)
    run = Run(model, max_batch_tokens=24, max_sequences=4)
    assert run.engine.fused == (compiled_rows() is not None)
    for id in range(6):
        run.submit(id, PROMPTS[id], COUNT)
        run.step(2)
    run.drain()
    assert run.tokens == answers


@pytest.mark.parametrize("name", ["mistral", "gemma2", "gpt_oss", "deepseek_v3", "gpt2"])
def test_without_a_compiled_kernel_the_tokens_are_the_same(
    name: str, small_slots: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "_compiled", lambda *_: None)
    run = mixed(name)
    assert run.engine.path == "packed"
    run.drain()
    assert wrong(name, run) == {}


def styled(monkeypatch: pytest.MonkeyPatch, change: Callable[[attention.Style], dict[str, Any]]) -> None:
    """Attention that is asked for something else than the architecture asks for."""
    original = attention.attend

    def attend(*inputs: Any) -> torch.Tensor:
        *others, style = inputs
        return original(*others, dataclasses.replace(style, **change(style)))

    monkeypatch.setattr(attention, "attend", attend)


def window(by: int | None) -> Callable[[pytest.MonkeyPatch], None]:
    def change(style: attention.Style) -> dict[str, Any]:
        return {"window": style.window + by if style.window and by else None}

    return lambda monkeypatch: styled(monkeypatch, change)


def causal(by: int) -> Callable[[pytest.MonkeyPatch], None]:
    """Tokens of a prompt see so many tokens more than they may; without a window."""

    def mask(self: Prefilling, _: int | None, like: torch.Tensor, groups: int) -> torch.Tensor:
        query, place = torch.arange(self.past, self.past + self.count), torch.arange(self.past + self.count)
        hidden = place[None] > (query[:, None] + by).clamp_min(0)
        return torch.zeros(hidden.shape, dtype=like.dtype).masked_fill(hidden, float("-inf")).repeat(groups, 1)

    return lambda monkeypatch: monkeypatch.setattr(Prefilling, "mask", mask)


def decoding_sees(by: int) -> Callable[[pytest.MonkeyPatch], None]:
    """Tokens of answers go so many places away from their own, and see the slot up to there."""

    def plant(monkeypatch: pytest.MonkeyPatch) -> None:
        def shifted(*, past: list[int], **others: Any) -> attention.Decoding:
            return attention.Decoding(past=[max(0, count + by) for count in past], **others)

        def make(slab: Any, slots: list[int], past: list[int], start: int) -> attention.Decoding:
            return shifted(slab=slab, slots=slots, past=[min(p, slab.capacity - 2) for p in past], start=start)

        monkeypatch.setattr(packed, "Decoding", make)

    return plant


def shifted_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    """While one sequence decodes, its positions are shifted by one."""
    original = packed._Row.add_decoding

    def add(self: Any, slab: Any, members: Any) -> None:
        original(self, slab, members)
        for place, sequence in enumerate(self.decoding):
            if sequence.id == 1:
                self.positions[place] += 1

    monkeypatch.setattr(packed._Row, "add_decoding", add)


def wrong_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever moves into a slot that was freed is looked for in the one before it."""

    def give_back(self: Any, slab: Any, slot: int) -> None:
        moved = slab.give_back(slot)
        if moved is not None:
            self._places[moved.id] = (slab, max(0, slot - 1))

    monkeypatch.setattr(KVCache, "_give_back", give_back)


def lost_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever moves to a larger slot leaves its keys and values behind."""
    monkeypatch.setattr("polyroute.backends.local.worker.forward.slabs.Slab.copy", lambda *_: None)


def prefix_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prefix is restored one place too late."""
    original = KVCache.restore

    def restore(self: Any, sequence: Any) -> None:
        original(self, sequence)
        slab, slot = self.place(sequence)
        for keys in slab.keys:
            keys[slot] = keys[slot].roll(1, 2)
        for values in slab.values:
            values[slot] = values[slot].roll(1, 1)

    monkeypatch.setattr(KVCache, "restore", restore)


def prefix_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefixes are taken for the same where only their first tokens are."""
    monkeypatch.setattr(prefixes, "_common", lambda known, tokens, start: min(len(known), len(tokens) - start))


FAULTS: list[tuple[str, str, Callable[[pytest.MonkeyPatch], None]]] = [
    ("a window ignored", "mistral", window(None)),
    ("a window too wide by one", "mistral", window(1)),
    ("a window too narrow by one", "mistral", window(-1)),
    ("a window ignored in some layers", "gemma3", window(None)),
    ("a prompt sees one too many", "llama", causal(1)),
    ("a prompt sees one too few", "llama", causal(-1)),
    ("an answer sees one too many", "gpt2", decoding_sees(1)),
    ("an answer sees one too few", "gpt2", decoding_sees(-1)),
    ("a soft cap ignored", "gemma2", lambda monkeypatch: styled(monkeypatch, lambda _: {"softcap": None})),
    ("sinks ignored", "gpt_oss", lambda monkeypatch: styled(monkeypatch, lambda _: {"sinks": None})),
    ("a scaling ignored", "granite", lambda monkeypatch: styled(monkeypatch, lambda _: {"scaling": 0.3})),
    ("positions of one shifted, relative", "llama", shifted_positions),
    ("positions of one shifted, absolute", "gpt2", shifted_positions),
]
MOVES: list[tuple[str, str, Callable[[pytest.MonkeyPatch], None]]] = [
    ("a wrong slot after a move", "llama", wrong_slots),
    ("a move without what moves", "llama", lost_moves),
    ("a prefix elsewhere", "llama", prefix_elsewhere),
    ("a prefix of another", "llama", prefix_of_another),
]


def both_waves(name: str) -> Run:
    run, (_, asked) = mixed(name), references(name)
    run.drain()
    for id in (10, 11, 12):
        run.submit(id, asked[id][0], COUNT)
    run.drain()
    return run


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize(("fault", "name", "plant"), FAULTS + MOVES)
def test_equality_is_not_blind(
    fault: str, name: str, plant: Any, compiled: bool, small_slots: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault that gets past the trial at load makes tokens differ."""
    if not compiled:
        monkeypatch.setattr(attention, "_compiled", lambda *_: None)
    monkeypatch.setattr(fit.Trial, "compare", lambda *_: None)
    plant(monkeypatch)
    assert wrong(name, both_waves(name)) != {}, fault


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize(("fault", "name", "plant"), FAULTS)
def test_the_trial_at_load_finds_what_attention_gets_wrong(
    fault: str, name: str, plant: Any, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compiled:
        monkeypatch.setattr(attention, "_compiled", lambda *_: None)
    plant(monkeypatch)
    run = start(name)
    assert run.engine.path == "apart", fault
    assert "answers differently" in run.engine.why_apart


def windows(model: Any) -> list[int | None]:
    return [getattr(owner, "sliding_window", None) for owner in (model.config, *model.modules())]


@pytest.mark.parametrize("faulty", [False, True])
@pytest.mark.parametrize("name", ["mistral", "gemma3", "gpt_oss", "qwen2 with window"])
def test_the_trial_tries_windows_that_are_wider_than_its_texts(
    name: str, faulty: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny.build(name, len(vocabulary().tokenizer), sliding_window=4096)
    before = windows(model)
    assert 4096 in before
    if faulty:
        window(None)(monkeypatch)
    assert Run(model).engine.path == ("apart" if faulty else "packed")
    assert windows(model) == before
