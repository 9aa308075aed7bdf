"""Decoder layers of Llama's kind as a dozen calls of compiled functions, in the place of some fifty operations.

Only layers that are known line by line are replaced, and the trial at load compares what they give with the original.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers.activations import SiLUActivation

from polyroute.backends.local.worker.compute.linear import Linear, Part
from polyroute.backends.local.worker.compute.rows import Rows, compiled_rows
from polyroute.backends.local.worker.forward.attention import BATCH, Batch, Style, attend

_WINDOWS: dict[str, Callable[[Any], int | None]] = {
    "transformers.models.llama.modeling_llama.LlamaDecoderLayer": lambda _: None,
    "transformers.models.mistral.modeling_mistral.MistralDecoderLayer": lambda attention: (
        attention.config.sliding_window
    ),
    "transformers.models.qwen2.modeling_qwen2.Qwen2DecoderLayer": lambda attention: attention.sliding_window,
}
"""The layers that are known, and where each one's attention window stands."""


def fuse(model: Any) -> Callable[[], None] | None:
    """Replaces what runs the model's decoder layers; returns how to undo that, or None where nothing was replaced.

    The layers then run packed only, with a `Batch` passed through the model.
    """
    rows = compiled_rows()
    layers = [module for module in model.modules() if _name(module) in _WINDOWS]
    if rows is None or not layers or not all(_fits(layer, rows) for layer in layers):
        return None
    for layer in layers:
        layer.forward = FusedLayer(layer, rows).forward

    def undo() -> None:
        for layer in layers:
            del layer.forward

    return undo


class FusedLayer:
    """Computes what the layer that it is made of computes, on one row of packed tokens, in float32."""

    def __init__(self, layer: Any, rows: Rows) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self._rows = rows
        self._window = _WINDOWS[_name(layer)]
        self._attention = attention
        self._heads = attention.q_proj.out_features // attention.head_dim
        self._kv_heads = attention.k_proj.out_features // attention.head_dim
        self._width = attention.head_dim
        self._first_norm, self._second_norm = layer.input_layernorm, layer.post_attention_layernorm
        self._qkv, self._mix = attention.q_proj.whole.layer, attention.o_proj.layer
        self._gate_up, self._down = mlp.gate_proj.whole.layer, mlp.down_proj.layer

    def forward(
        self, hidden_states: torch.Tensor, position_embeddings: tuple[torch.Tensor, torch.Tensor], **others: Any
    ) -> torch.Tensor:
        """`hidden_states` [1, tokens, hidden], `position_embeddings` cos and sin [1, tokens, head width]."""
        batch: Batch = others[BATCH]
        x, rows = hidden_states[0], self._rows
        first, second = self._first_norm, self._second_norm
        normed = rows.norm(x, first.weight, first.variance_epsilon)
        mixed = self._mix.run(self._attend(self._qkv.run(normed), position_embeddings, batch))
        x, normed = rows.add_norm(mixed, x, second.weight, second.variance_epsilon)
        return self._down.run(rows.gate(self._gate_up.run(normed))).add_(x)[None]  # type: ignore[no-any-return]

    def _attend(self, qkv: torch.Tensor, angles: tuple[torch.Tensor, torch.Tensor], batch: Batch) -> torch.Tensor:
        tokens, heads, kv_heads = qkv.shape[0], self._heads, self._kv_heads
        cos, sin = (part[0].contiguous() for part in angles)
        self._rows.rotate(qkv, heads + kv_heads, cos, sin)
        by_head = qkv.view(tokens, heads + 2 * kv_heads, self._width).transpose(0, 1)
        style = Style(self._attention.scaling, self._window(self._attention), None, None)
        key, value = by_head[heads : heads + kv_heads], by_head[heads + kv_heads :]
        found = attend(batch, self._attention.layer_idx, by_head[:heads], key, value, style)
        return found.view(tokens, heads * self._width)


def _name(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"


def _fits(layer: Any, rows: Rows) -> bool:
    """Whether the layer's parts are those that the compiled functions know, and their sizes whole vectors."""
    attention, mlp = layer.self_attn, layer.mlp
    parts = (attention.q_proj, attention.k_proj, attention.v_proj, mlp.gate_proj, mlp.up_proj)
    whole = all(isinstance(part, Part) for part in parts) and type(mlp.act_fn) in (nn.SiLU, SiLUActivation)
    if not whole or not all(isinstance(part, Linear) for part in (attention.o_proj, mlp.down_proj)):
        return False
    sizes = (attention.head_dim // 2, layer.input_layernorm.weight.numel(), mlp.gate_proj.out_features)
    return layer.input_layernorm.weight.dtype is torch.float32 and all(size % rows.width == 0 for size in sizes)
