"""An engine that attends by kernels answers as `generate` does, whoever comes and goes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from polyroute.backends.local.worker.forward import batch, fit, fused_gpu, kv_cache
from polyroute.backends.local.worker.forward.graphs import Graphs
from polyroute.backends.local.worker.gpu.attention import SlotAttention, Tiles
from tests import tiny
from tests.kernels import DEVICE, needs_kernels
from tests.recording import Recorder
from tests.stepping import Run, greedy, vocabulary

pytestmark = needs_kernels

WAITING = {"gpt_oss", "deepseek_v3"}  # their experts, in float32, ask CUDA for how many tokens each has
COUNT = 12 if DEVICE.type == "cuda" else 6
PROMPTS = [
    torch.randint(2, 680, (length,), generator=torch.Generator().manual_seed(length)).tolist() for length in (5, 33, 17)
]
FUSED = ["llama", "mistral", "qwen2", "qwen2 with window"]
ON_GPU = [*FUSED, "qwen3", "gemma2", "gemma3", "gpt2", "gpt_oss", "deepseek_v3"]
STYLES = ON_GPU if DEVICE.type == "cuda" else ["qwen2 with window", "gpt_oss"]  # the interpreter takes its time


@pytest.fixture(autouse=True)
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels wherever the test runs, recordings likewise, and small slots that sequences outgrow."""
    if DEVICE.type == "cpu":
        monkeypatch.setattr(fit, "slot_attention", lambda _, **options: SlotAttention(16, **options))
        monkeypatch.setattr(fit, "recorder", lambda _: Recorder().record)
    monkeypatch.setattr(fit, "Graphs", partial(Graphs, after=0))
    monkeypatch.setattr(fit, "KVCache", partial(kv_cache.KVCache, first_capacity=16))
    monkeypatch.setattr(kv_cache, "_ROOM_AHEAD", 4)


def run(model: Any, **options: Any) -> Run:
    """Three answers: one joins late, and is read in chunks beside the first; and one leaves early."""
    made = Run(copy.deepcopy(model).to(DEVICE), max_batch_tokens=24, max_sequences=4, **options)
    made.submit(0, PROMPTS[0], COUNT)
    made.step(3)
    made.submit(100, PROMPTS[2], COUNT)
    made.submit(1, PROMPTS[1], COUNT)
    made.step(4)
    made.cancel(100)
    made.submit(2, PROMPTS[2], COUNT)
    made.drain()
    return made


def wanted(model: Any) -> dict[int, list[int]]:
    return {id: greedy(model, prompt, COUNT) for id, prompt in enumerate(PROMPTS)}


@pytest.mark.parametrize("graphs", [True, False], ids=["graphs", "eager"])
@pytest.mark.parametrize("name", STYLES)
def test_tokens_are_those_of_generate(name: str, graphs: bool) -> None:
    if DEVICE.type == "cpu" and graphs:
        pytest.skip("a recording cannot hold what the interpreter computes")
    model = tiny.build(name, len(vocabulary().tokenizer))
    answered = run(model, cuda_graphs=graphs)
    engine = answered.engine
    assert engine.kernels, engine.why_plain
    assert engine.graphs is (graphs and name not in WAITING), engine.why_eager
    assert engine.fused == (name in FUSED)
    assert answered.tokens == wanted(model)


def misplaced(monkeypatch: pytest.MonkeyPatch) -> None:
    original = batch._chunk_tiles

    def tiles(*given: Any) -> Tiles:
        made = original(*given)
        return Tiles(made.slots, made.past + (made.past > 0), chunks=made.chunks)

    monkeypatch.setattr(batch, "_chunk_tiles", tiles)


def windowless(monkeypatch: pytest.MonkeyPatch) -> None:
    original = SlotAttention.run

    def attend(*given: Any, **style: Any) -> None:
        original(*given, **(style | {"window": None}))

    monkeypatch.setattr(SlotAttention, "run", attend)


def unturned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_gpu.Rows, "rotate", lambda *_: None)


@pytest.mark.parametrize(
    ("fault", "fused", "kernels"), [(misplaced, False, False), (windowless, False, False), (unturned, False, True)]
)
def test_the_trial_at_load_finds_what_is_wrong_and_goes_without_it(
    fault: Callable[[pytest.MonkeyPatch], None], fused: bool, kernels: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    model = tiny.build("mistral", len(vocabulary().tokenizer))
    answered = run(model, cuda_graphs=False)
    assert (answered.engine.fused, answered.engine.kernels) == (fused, kernels)
    assert ("answers differently" in answered.engine.why_plain) is not kernels
    assert answered.tokens == wanted(model)


def test_without_triton_torch_attends_and_it_is_said_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any, **__: Any) -> SlotAttention:
        raise ImportError("No module named 'triton'")

    monkeypatch.setattr(fit, "slot_attention", missing)
    model = tiny.build("llama", len(vocabulary().tokenizer))
    answered = run(model, cuda_graphs=False)
    assert (answered.engine.kernels, answered.engine.why_plain) == (False, "ImportError: No module named 'triton'")
    assert answered.tokens == wanted(model)
