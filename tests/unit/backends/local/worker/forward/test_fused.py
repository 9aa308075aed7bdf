"""Fused layers give what the layers give that they replace, played from a tape or called one by one."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from polyroute.backends.local.worker.compute import prepare
from polyroute.backends.local.worker.compute.tape import Tape
from polyroute.backends.local.worker.detokenize import Vocabulary
from polyroute.backends.local.worker.engine import Engine
from polyroute.backends.local.worker.forward.fused import fuse
from polyroute.backends.local.worker.sampling import SamplingDefaults
from polyroute.core.request import Sampling
from tests import tiny

WIDE: dict[str, Any] = {"num_attention_heads": 2, "num_key_value_heads": 1}
"""Heads of 32 numbers: half a head is then a whole vector on every processor."""

WINDOWED = {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1}


def vocabulary() -> Vocabulary:
    return Vocabulary(tiny.byte_level_tokenizer())


def answers(model: Any, prompts: list[list[int]], **options: Any) -> tuple[Engine, list[str]]:
    """Greedy answers, the later ones joining late, so that steps with and without prompts take turns."""
    options = {"context_length": 512, "eos": frozenset(), "defaults": SamplingDefaults()} | options
    engine = Engine(model, vocabulary(), max_batch_tokens=24, **options)
    texts = [""] * len(prompts)
    for id, prompt in enumerate(prompts):
        engine.submit(id, prompt, Sampling(max_tokens=30, temperature=0))
        for _ in range(4):
            for output in engine.step():
                texts[output.id] += output.text  # type: ignore[union-attr]
    while engine.busy:
        for output in engine.step():
            texts[output.id] += output.text  # type: ignore[union-attr]
    return engine, texts


@pytest.mark.parametrize(
    ("kind", "changes"), [("llama", {}), ("mistral", {"head_dim": 32}), ("qwen2", {}), ("qwen2", WINDOWED)]
)
def test_fused_layers_give_the_same_greedy_answers(
    kind: str, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = tiny.build_model(kind, len(vocabulary().tokenizer), **(WIDE | changes))
    prompts = [torch.randint(2, 680, (n,), generator=torch.Generator().manual_seed(n)).tolist() for n in (9, 40, 70)]
    _, wanted = answers(copy.deepcopy(plain), prompts)
    played = 0
    play = Tape.play

    def counted(tape: Tape) -> None:
        nonlocal played
        played += 1
        play(tape)

    monkeypatch.setattr(Tape, "play", counted)
    prepare(plain, quantization=None)
    engine, found = answers(plain, prompts)
    assert engine.fused
    assert played > 30
    assert found == wanted
    assert len(set(found)) == len(found)


def test_a_fused_layer_that_is_wrong_is_noticed_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.build_model("llama", len(vocabulary().tokenizer), **WIDE)
    prepare(model, quantization=None)
    monkeypatch.setattr(Tape, "play", lambda _: None)
    engine, _ = answers(model, [[5, 6, 7]])
    assert engine.path == "packed"
    assert not engine.fused


def test_fused_layers_that_fail_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.build_model("llama", len(vocabulary().tokenizer), **WIDE)
    prepare(model, quantization=None)

    def fail(_: Tape) -> None:
        raise RuntimeError("no such instruction")

    monkeypatch.setattr(Tape, "play", fail)
    engine, texts = answers(model, [[5, 6, 7]])
    assert engine.path == "packed"
    assert not engine.fused
    assert texts[0]


@pytest.mark.parametrize("quantization", [None, "int8", "int4"])
def test_models_of_16_bits_are_fused_whatever_their_products_round(quantization: str | None) -> None:
    """Rounded products make much of small differences; the trial at load must not take these for faults."""
    model = tiny.build_model("llama", len(vocabulary().tokenizer), **WIDE).bfloat16()
    prepared = prepare(model, quantization=quantization)
    engine, texts = answers(model, [[5, 6, 7], [8, 9]], kv_dtype=prepared.kv_dtype)
    assert engine.fused, engine.why_apart
    assert all(texts)


def test_layers_that_are_not_known_are_left_alone() -> None:
    config = CONFIG_MAPPING["llama"](
        vocab_size=64,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        hidden_act="gelu",
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    prepare(model, quantization=None)
    assert fuse(model) is None
    assert fuse(tiny.build_model("llama", 64)) is None  # its linear layers are torch's
