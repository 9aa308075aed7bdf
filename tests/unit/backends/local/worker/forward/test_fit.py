"""A model that cannot be packed is left as it was, and the reason told."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import DynamicCache

from polyroute.backends.local.worker.forward import fit as module
from polyroute.backends.local.worker.forward.apart import ApartForward, cache_name
from polyroute.backends.local.worker.forward.fit import fit
from polyroute.backends.local.worker.forward.packed import PackedForward
from tests import tiny

VOCABULARY = 100


def test_a_model_that_can_be_packed_is_and_under_the_given_cap() -> None:
    fitted = fit(tiny.build("llama", VOCABULARY), 1 << 20)
    assert isinstance(fitted.forward, PackedForward)
    assert fitted.why_apart == ""
    assert fitted.forward.memory.capacity_tokens == (1 << 20) // (2 * 2 * (8 + 8) * 4)
    assert fitted.forward.memory.used_bytes == 0  # nothing of the trial stays


def test_a_model_is_tried_packed_however_much_its_keys_and_values_take() -> None:
    """Over half a mebibyte a token, as Llama's 13B has it: two texts in slots of 256 would be over 256 MiB."""
    wide = {"num_hidden_layers": 9, "hidden_size": 64, "num_attention_heads": 64, "num_key_value_heads": 64}
    assert fit(tiny.build("llama", VOCABULARY, head_dim=128, **wide), 1 << 30).why_apart == ""


@pytest.mark.parametrize("name", ["gptj", "mamba", "llama4", "lfm2"])
def test_a_model_that_cannot_be_packed_computes_afterwards_what_it_did_before(name: str) -> None:
    model = tiny.build(name, VOCABULARY)
    tokens = torch.arange(2, 60)[None]
    own = model.config._attn_implementation
    with torch.inference_mode():
        before = model(tokens, use_cache=False).logits
        fitted = fit(model, 1 << 24)
        after = model(tokens, use_cache=False).logits
    assert isinstance(fitted.forward, ApartForward)
    assert fitted.why_apart
    assert model.config._attn_implementation == own
    assert torch.equal(before, after)


@pytest.mark.parametrize(
    ("name", "whole_prompts"), [("gptj", False), ("bloom", False), ("lfm2", False), ("mamba", True)]
)
def test_a_state_that_takes_one_token_at_a_time_wants_whole_prompts(name: str, whole_prompts: bool) -> None:
    assert fit(tiny.build(name, VOCABULARY), 1 << 24).forward.whole_prompts == whole_prompts


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_positions_that_depend_on_the_length_of_the_text_are_not_packed(kind: str) -> None:
    scaling: dict[str, Any] = {"rope_type": kind, "factor": 2.0, "rope_theta": 10000.0}
    if kind == "longrope":
        scaling |= {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4, "original_max_position_embeddings": 64}
    fitted = fit(tiny.build("llama", VOCABULARY, rope_parameters=scaling), 1 << 24)
    assert isinstance(fitted.forward, ApartForward)
    assert kind in fitted.why_apart


def test_a_model_that_fails_in_the_trial_is_not_packed() -> None:
    model = tiny.build("llama", VOCABULARY)

    def refuse(_: Any, inputs: Any, given: dict[str, Any]) -> None:
        if "polyroute_batch" in given:
            raise KeyError("no such thing")

    model.register_forward_pre_hook(refuse, with_kwargs=True)
    fitted = fit(model, 1 << 24)
    assert isinstance(fitted.forward, ApartForward)
    assert fitted.why_apart == "KeyError: 'no such thing'"


def test_without_a_cap_the_device_says_how_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "spare_bytes", lambda device: 1 << 20)
    assert fit(tiny.build("llama", VOCABULARY), None).forward.memory.capacity_tokens == (1 << 20) // 256


@pytest.mark.parametrize("name", ["gptj", "mamba", "lfm2"])
def test_the_memory_of_one_apart_is_about_what_its_state_takes(name: str) -> None:
    model = tiny.build(name, VOCABULARY)
    memory: Any = fit(model, 1 << 24).forward.memory
    cache = DynamicCache(config=model.config)
    with torch.inference_mode():
        model(torch.arange(2, 66)[None], use_cache=True, **{cache_name(model): cache})
    real = sum(v.nbytes for layer in cache.layers for v in vars(layer).values() if isinstance(v, torch.Tensor))

    class Holder:
        id = 1

    memory.reserve(Holder(), 64)
    assert real <= memory.used_bytes <= real * 1.1 + 64
