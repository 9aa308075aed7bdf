"""Decoder layers of Llama's kind as nine launches, in the place of some fifty operations of torch each.

Only layers that are known line by line are replaced, and the trial at load compares what they give with the original.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - as everybody calls it
from torch import nn
from transformers.activations import SiLUActivation

from polyroute.backends.local.worker.forward.attention import Style, attend
from polyroute.backends.local.worker.forward.batch import BATCH, Batch
from polyroute.backends.local.worker.forward.fused import WINDOWS, layer_name
from polyroute.backends.local.worker.gpu.rows import Rows


def fuse_on_gpu(model: Any) -> GpuStack | None:
    """Replaces what runs the model's decoder layers; None where nothing was replaced.

    The layers then run packed only, with a `Batch` passed through the model. Raises `ImportError` without Triton.
    """
    layers = [module for module in model.modules() if layer_name(module) in WINDOWS]
    if not layers or not all(_fits(layer) for layer in layers):
        return None
    return GpuStack(layers, Rows())


class GpuStack:
    """The layers together."""

    def __init__(self, layers: list[Any], rows: Rows) -> None:
        fused = [_GpuLayer(layer, rows) for layer in layers]  # all of them before any is replaced: memory may run out
        self._replaced = layers
        for layer, made in zip(layers, fused, strict=True):
            layer.forward = _forward_of(made)

    def undo(self) -> None:
        """Lets the layers run as they did before."""
        for layer in self._replaced:
            del layer.forward

    def forget(self) -> None:
        """Forgets what was learnt while windows were narrowed: nothing, for they are asked for in every step."""


def _forward_of(fused: _GpuLayer) -> Callable[..., torch.Tensor]:
    """What takes the place of a layer's `forward`."""

    def forward(
        hidden_states: torch.Tensor, position_embeddings: tuple[torch.Tensor, torch.Tensor], **others: Any
    ) -> torch.Tensor:
        cos, sin = position_embeddings
        return fused.run(hidden_states[0], cos[0].contiguous(), sin[0].contiguous(), others[BATCH])[None]

    return forward


class _GpuLayer:
    """Computes what the layer that it is made of computes, on a row of packed tokens."""

    def __init__(self, layer: Any, rows: Rows) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self._rows = rows
        self._window = WINDOWS[layer_name(layer)]
        self._attention = attention
        self._width = attention.head_dim
        self._heads = attention.q_proj.out_features // self._width
        self._kv_heads = attention.k_proj.out_features // self._width
        self._first_norm, self._second_norm = layer.input_layernorm, layer.post_attention_layernorm
        self._qkv, self._qkv_bias = _joined(attention.q_proj, attention.k_proj, attention.v_proj)
        self._gate_up, _ = _joined(mlp.gate_proj, mlp.up_proj)
        self._mix, self._down = attention.o_proj.weight, mlp.down_proj.weight

    def run(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, batch: Batch) -> torch.Tensor:
        """x [tokens, hidden], which the result is written over; `cos` and `sin` [tokens, head width]."""
        rows, first, second = self._rows, self._first_norm, self._second_norm
        qkv = F.linear(rows.norm(x, first.weight, first.variance_epsilon), self._qkv, self._qkv_bias)
        rows.rotate(qkv, self._heads + self._kv_heads, cos, sin)
        style = Style(self._attention.scaling, self._window(self._attention), None, None)
        found = attend(batch, self._attention.layer_idx, *self._by_head(qkv), style)
        x.addmm_(found.view(len(x), -1), self._mix.t())
        gated = rows.gate(F.linear(rows.norm(x, second.weight, second.variance_epsilon), self._gate_up))
        return x.addmm_(gated, self._down.t())

    def _by_head(self, qkv: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        by_head = qkv.view(len(qkv), self._heads + 2 * self._kv_heads, self._width).transpose(0, 1)
        return by_head[: self._heads], by_head[self._heads : -self._kv_heads], by_head[-self._kv_heads :]


def _joined(*layers: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The weights of several layers of one input as one, and their biases; the layers keep their parts of it."""
    whole = torch.cat([layer.weight.detach() for layer in layers])
    for layer, part in zip(layers, torch.split(whole, [layer.out_features for layer in layers]), strict=True):
        layer.weight = nn.Parameter(part, requires_grad=False)
    bias = None if layers[0].bias is None else torch.cat([layer.bias.detach() for layer in layers])
    return whole, bias


def _fits(layer: Any) -> bool:
    """Whether the layer's parts are those that the kernels know."""
    attention, mlp = layer.self_attn, layer.mlp
    inputs = (attention.q_proj, attention.k_proj, attention.v_proj)
    others = (attention.o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj)
    plain = all(type(part) is nn.Linear for part in (*inputs, *others)) and all(part.bias is None for part in others)
    biased = {part.bias is None for part in inputs}
    return plain and len(biased) == 1 and type(mlp.act_fn) in (nn.SiLU, SiLUActivation) and attention.head_dim % 2 == 0
