"""A prepared model answers as it did before, in whatever its weights are kept."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import nn
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from polyroute.backends.local.worker import compute
from polyroute.backends.local.worker.compute import jit, layers
from polyroute.backends.local.worker.compute.arithmetic import SINGLES, multiplies_pairs
from polyroute.backends.local.worker.compute.experts import Experts
from polyroute.backends.local.worker.compute.formats import BFloat16, BFloat16Pairs
from polyroute.backends.local.worker.compute.linear import Embedding, Linear, Part
from polyroute.backends.local.worker.failures import LoadError
from tests.tiny import SHAPES, build_model

VOCABULARY = 300
MIXTURE = {
    "num_local_experts": 4,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 64,
    "head_dim": 16,
}


def build(kind: str, dtype: torch.dtype) -> Any:
    if kind in SHAPES:
        return build_model(kind, VOCABULARY).to(dtype)
    changes = MIXTURE if kind in ("mixtral", "qwen3_moe", "gpt_oss") else {}
    torch.manual_seed(0)
    shape = SHAPES["llama"] | {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    if kind == "mamba":
        shape = {"vocab_size": VOCABULARY, "hidden_size": 64, "num_hidden_layers": 2, "state_size": 8}
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**(shape | changes)), dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.mul_(3)
    return model.to(dtype)


def text() -> torch.Tensor:
    return torch.randint(2, VOCABULARY, (2, 11), generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def logits(model: Any) -> torch.Tensor:
    found: torch.Tensor = model(text()).logits.float()
    return found


def greedy(model: Any) -> torch.Tensor:
    found: torch.Tensor = model.generate(text(), max_new_tokens=16, do_sample=False, pad_token_id=1)
    return found


PAIRS = multiplies_pairs(jit.processor())
"""Whether weights of bfloat16 are multiplied with numbers rounded to it."""


def assert_near(model: Any, own: Any, dtype: torch.dtype = torch.bfloat16) -> None:
    """As near as the arithmetic for weights of that type allows."""
    found, wanted = logits(model), logits(own)
    if dtype is torch.bfloat16 and PAIRS:
        assert float((found - wanted).norm() / wanted.norm()) < 0.05  # torch's own bfloat16 is further off
    else:
        assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


KINDS = ["llama", "qwen2", "gpt2", "gemma", "mistral", "phi3", "gemma3_text", "mixtral", "qwen3_moe"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", KINDS)
def test_answers_as_in_float32(kind: str, dtype: torch.dtype) -> None:
    model, own = build(kind, dtype), build(kind, dtype).float()
    prepared = compute.prepare(model, quantization=None)
    assert str(dtype).removeprefix("torch.") in prepared.words
    assert model.dtype is torch.float32
    assert_near(model, own, dtype)
    if dtype is not torch.bfloat16 or not PAIRS:
        assert torch.equal(greedy(model), greedy(own))
    assert not [name for name, module in model.named_modules() if type(module) is nn.Linear]


@pytest.mark.parametrize(("quantization", "tolerance"), [("int8", 0.05), ("int4", 0.7)])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "mixtral"])
def test_quantised_answers_are_near(kind: str, quantization: str, tolerance: float) -> None:
    model, own = build(kind, torch.bfloat16), build(kind, torch.bfloat16).float()
    assert quantization in compute.prepare(model, quantization=quantization).words
    off = (logits(model) - logits(own)).norm() / logits(own).norm()
    assert 1e-4 < float(off) < tolerance


def test_layers_of_one_input_are_one() -> None:
    model = build("llama", torch.bfloat16)
    compute.prepare(model, quantization=None)
    attention, mlp = model.model.layers[0].self_attn, model.model.layers[0].mlp
    x = torch.randn(1, 5, 64)
    assert attention.q_proj.whole is attention.v_proj.whole
    assert mlp.gate_proj.whole is mlp.up_proj.whole
    own = build("llama", torch.bfloat16).float().model.layers[0].self_attn
    seen = x.bfloat16().float() if PAIRS else x
    for name in ("q_proj", "k_proj", "v_proj"):
        assert torch.allclose(getattr(attention, name)(x), getattr(own, name)(seen), atol=1e-5)


def test_parts_are_never_stale_and_hold_nothing() -> None:
    model = build("llama", torch.bfloat16)
    compute.prepare(model, quantization=None)
    attention = model.model.layers[0].self_attn
    q, k, v = attention.q_proj, attention.k_proj, attention.v_proj
    x = torch.randn(1, 2, 64)
    k(x)
    x.mul_(2)
    assert torch.equal(q(x), build_part(q, x))  # changed in place, so the first part computes anew
    y = torch.randn(1, 2, 64)
    assert torch.equal(k(y), build_part(k, y))
    q(x), k(x), v(x)
    gone = weakref.ref(x)
    del x
    gc.collect()
    assert gone() is None


def build_part(part: Part, x: torch.Tensor) -> torch.Tensor:
    found: tuple[torch.Tensor, ...] = part.whole.layer.run(x).split([64, 32, 32], -1)
    return next(piece for piece in found if piece.shape[-1] == part.out_features)


def test_an_input_table_shares_the_output_layers_weights() -> None:
    for kind in ("gpt2", "gemma", "gemma3_text"):
        model = build(kind, torch.bfloat16)
        compute.prepare(model, quantization=None)
        assert isinstance(model.get_input_embeddings(), Embedding), kind
        assert isinstance(model.get_output_embeddings(), Linear), kind


def test_a_table_of_its_own_keeps_its_type() -> None:
    model = build("llama", torch.bfloat16)
    assert not model.config.tie_word_embeddings
    compute.prepare(model, quantization=None)
    table = model.get_input_embeddings()
    assert table.weight.dtype is torch.bfloat16
    assert table(torch.tensor([[3]])).dtype is torch.float32


def test_experts_are_packed() -> None:
    for kind in ("mixtral", "qwen3_moe", "gpt_oss"):
        model, own = build(kind, torch.bfloat16), build(kind, torch.bfloat16).float()
        compute.prepare(model, quantization=None)
        assert sum(isinstance(module, Experts) for module in model.modules()) == 3, kind
        assert_near(model, own)


def test_weights_that_a_model_computes_with_itself_stay() -> None:
    model, own = build("mamba", torch.bfloat16), build("mamba", torch.bfloat16).float()
    compute.prepare(model, quantization=None)
    assert type(model.backbone.layers[0].mixer.dt_proj) is nn.Linear
    assert isinstance(model.backbone.layers[0].mixer.in_proj, Linear)
    assert_near(model, own)


def test_nothing_of_the_original_weights_is_held() -> None:
    model = build("llama", torch.bfloat16)
    held = [weakref.ref(p.untyped_storage()) for name, p in model.named_parameters() if "embed" not in name]
    compute.prepare(model, quantization=None)
    gc.collect()
    assert [ref for ref in held if ref() is not None] == []


def test_without_kernels_torchs_own_layers_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "kernel", lambda name: None)
    monkeypatch.setattr(layers.onednn, "usable", lambda dtype: False)
    model = build("llama", torch.bfloat16)
    before = logits(model)
    assert compute.prepare(model, quantization=None).words == "bfloat16 in torch's own layers"
    assert torch.equal(logits(model), before)
    with pytest.raises(LoadError, match="`quantization`"):
        compute.prepare(model, quantization="int8")


@pytest.mark.parametrize(
    ("features", "ours"),
    [(set(), False), ({"avx512bf16"}, True), ({"avx512bf16", "amx-bf16"}, False)],
    ids=["none", "pairs", "matrices"],
)
def test_bfloat16_is_multiplied_by_what_is_fastest_where_there_is_an_instruction_for_it(
    features: set[str], ours: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Found:
        form = BFloat16Pairs() if ours or "amx-bf16" in features else BFloat16()
        rounding = None if form.arithmetic is SINGLES else object()

    monkeypatch.setattr(layers.onednn, "usable", lambda dtype: True)
    monkeypatch.setattr(layers, "kernel", lambda name: Found())
    processor = jit.Processor("some", frozenset(features), 16, 32, pairs=True)
    monkeypatch.setattr(layers.jit, "processor", lambda: processor)
    maker = layers.choose(torch.bfloat16, None)
    assert maker is not None
    assert maker.widens is ours
    assert ("prepacked" in maker.words) is not ours


def test_keys_and_values_stay_in_bfloat16_where_the_processor_rounds_to_it() -> None:
    kept = torch.bfloat16 if PAIRS else None
    assert compute.prepare(build("llama", torch.bfloat16), quantization=None).kv_dtype is kept
    assert compute.prepare(build("llama", torch.bfloat16), quantization="int8").kv_dtype is kept
    assert compute.prepare(build("llama", torch.float32), quantization=None).kv_dtype is None


def test_prepacked_layers_serve_float32_where_kernels_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "kernel", lambda name: None)
    model, own = build("llama", torch.float32), build("llama", torch.float32)
    assert "prepacked" in compute.prepare(model, quantization=None).words
    assert torch.allclose(logits(model), logits(own), atol=1e-4 * float(logits(own).abs().max()))


def test_quantization_is_for_the_cpu() -> None:
    model = build("llama", torch.bfloat16).to("meta")
    with pytest.raises(LoadError, match="`quantization: int8` is for models on the CPU; this one is on meta"):
        compute.prepare(model, quantization="int8")
    assert compute.prepare(model, quantization=None).words == "bfloat16 on meta"


@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_layers_whose_rows_are_no_whole_groups_stay_as_they_are(quantization: str) -> None:
    model = build_model("llama", 300, hidden_size=80, intermediate_size=560, num_attention_heads=4, head_dim=20)
    ids = torch.arange(2, 30)[None]
    with torch.no_grad():
        wanted = model(ids).logits
        compute.prepare(model, quantization=quantization)
        found = model(ids).logits
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found, wanted, rtol=0.0, atol=1e-3 * float(wanted.abs().max()))
