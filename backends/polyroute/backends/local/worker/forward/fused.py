"""Decoder layers of Llama's kind as a few compiled functions, in the place of some fifty operations of torch each.

Only layers that are known line by line are replaced, and the trial at load compares what they give with the original.
A step that only decodes plays a tape of all layers' functions in one call; one that also reads prompts calls them
layer by layer, between torch's attention over the chunks.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers.activations import SiLUActivation

from polyroute.backends.local.worker.compute.decode import DecodeAttention, decode_attention
from polyroute.backends.local.worker.compute.kernels import Layer
from polyroute.backends.local.worker.compute.linear import Linear, Part
from polyroute.backends.local.worker.compute.rows import Rows, compiled_rows
from polyroute.backends.local.worker.compute.tape import Tape
from polyroute.backends.local.worker.forward.attention import Style, attend
from polyroute.backends.local.worker.forward.batch import BATCH, Batch, Decoding
from polyroute.backends.local.worker.forward.slabs import Slab

WINDOWS: dict[str, Callable[[Any], int | None]] = {
    "transformers.models.llama.modeling_llama.LlamaDecoderLayer": lambda _: None,
    "transformers.models.mistral.modeling_mistral.MistralDecoderLayer": lambda attention: (
        attention.config.sliding_window
    ),
    "transformers.models.qwen2.modeling_qwen2.Qwen2DecoderLayer": lambda attention: attention.sliding_window,
}
"""The layers that are known, and where each one's attention window stands."""

_KEPT = 8  # recorded steps: the number of answers changes now and then, and often changes back

Angles = tuple[torch.Tensor, torch.Tensor]


def fuse(model: Any) -> Stack | None:
    """Replaces what runs the model's decoder layers; None where nothing was replaced.

    The layers then run packed only, with a `Batch` passed through the model.
    """
    rows = compiled_rows()
    layers = [module for module in model.modules() if layer_name(module) in WINDOWS]
    if rows is None or not layers or not all(_fits(layer, rows) for layer in layers):
        return None
    return Stack(layers, rows)


class _FusedLayer:
    """Computes what the layer that it is made of computes, on a row of packed tokens, in float32."""

    def __init__(self, layer: Any, rows: Rows) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self._window = WINDOWS[layer_name(layer)]
        self._attention = attention
        self.rows = rows
        self.width = attention.head_dim
        self.heads = attention.q_proj.out_features // self.width
        self.kv_heads = attention.k_proj.out_features // self.width
        self.index = attention.layer_idx
        self.first_norm, self.second_norm = layer.input_layernorm, layer.post_attention_layernorm
        self.qkv, self.mix = attention.q_proj.whole.layer, attention.o_proj.layer
        self.gate_up, self.down = mlp.gate_proj.whole.layer, mlp.down_proj.layer
        self.inner = mlp.gate_proj.out_features

    @property
    def style(self) -> Style:
        return Style(self._attention.scaling, self._window(self._attention), None, None)

    @property
    def recordable(self) -> bool:
        return all(isinstance(product, Layer) for product in (self.qkv, self.mix, self.gate_up, self.down))

    def kernel(self, slab: Slab) -> DecodeAttention | None:
        """What attends to the slab's keys and values, if there is something."""
        return decode_attention(self.heads // self.kv_heads, self.width, self.width, slab.keys[self.index].dtype)

    def run(self, x: torch.Tensor, angles: Angles, batch: Batch) -> torch.Tensor:
        """x [tokens, hidden], angles cos and sin [tokens, head width]."""
        first, second = self.first_norm, self.second_norm
        normed, total = torch.empty_like(x), torch.empty_like(x)
        self.rows.norm(x, first.weight, first.variance_epsilon, normed)
        qkv = self.qkv.run(normed)
        self.rows.rotate(qkv, self.heads + self.kv_heads, *angles)
        found = attend(batch, self.index, *self._by_head(qkv), self.style)
        mixed = self.mix.run(found.view(len(x), -1))
        self.rows.add_norm(mixed, x, total, second.weight, second.variance_epsilon, normed)
        gated = torch.empty((len(x), self.inner))
        self.rows.gate(self.gate_up.run(normed), gated)
        added: torch.Tensor = self.down.run(gated).add_(total)
        return added

    def record(self, space: _Space, groups: list[Decoding], following: Any, tape: Tape) -> None:
        """Has the tape do as `run`, from `space.normed` on, and the norm that the layer that follows begins with."""
        rows, second = self.rows, self.second_norm
        self.qkv.record(space.normed, space.qkv, space.room, tape)
        rows.rotate(space.qkv, self.heads + self.kv_heads, space.cos, space.sin, tape)
        query, key, value = self._by_head(space.qkv)
        style = self.style
        for group, slots, past in zip(groups, space.slots, space.past, strict=True):
            here = slice(group.start, group.stop)
            attention = self.kernel(group.slab)
            assert attention is not None  # noqa: S101 - `_Recorded` is not made without it
            attention.run(
                query[:, here],
                key[:, here],
                value[:, here],
                group.slab.keys[self.index],
                group.slab.values[self.index],
                slots,
                past,
                space.found[here],
                scaling=style.scaling,
                window=style.window,
                softcap=None,
                sinks=None,
                tape=tape,
            )
        self.mix.record(space.found, space.mixed, space.room, tape)
        rows.add_norm(space.mixed, space.x, space.x, second.weight, second.variance_epsilon, space.normed, tape)
        self.gate_up.record(space.normed, space.gate_up, space.room, tape)
        rows.gate(space.gate_up, space.gated, tape)
        self.down.record(space.gated, space.mixed, space.room, tape)
        if following is not None:
            epsilon = following.variance_epsilon
            rows.add_norm(space.mixed, space.x, space.x, following.weight, epsilon, space.normed, tape)

    def _by_head(self, qkv: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        by_head = qkv.view(len(qkv), self.heads + 2 * self.kv_heads, self.width).transpose(0, 1)
        return by_head[: self.heads], by_head[self.heads : -self.kv_heads], by_head[-self.kv_heads :]


class _Space:
    """The tensors that a recorded step works in, for `tokens` tokens."""

    def __init__(self, layer: _FusedLayer, tokens: int, hidden: int, groups: list[Decoding]) -> None:
        self.x, self.normed, self.mixed = (torch.empty(tokens, hidden) for _ in range(3))
        self.qkv = torch.empty(tokens, (layer.heads + 2 * layer.kv_heads) * layer.width)
        self.cos, self.sin = torch.empty(tokens, layer.width), torch.empty(tokens, layer.width)
        self.found = torch.empty(tokens, layer.heads * layer.width)
        self.gate_up, self.gated = torch.empty(tokens, 2 * layer.inner), torch.empty(tokens, layer.inner)
        widest = max(product.places for product in (layer.qkv, layer.mix, layer.gate_up, layer.down))
        self.room = torch.empty(tokens * widest, dtype=torch.int32)  # see `Layer.record`
        self.slots = [torch.empty(len(group.slots), dtype=torch.long) for group in groups]
        self.past = [torch.empty(len(group.slots), dtype=torch.long) for group in groups]


class _Recorded:
    """All layers over sequences that only decode, as long as they stand in the same slabs."""

    def __init__(self, layers: list[_FusedLayer], tokens: int, hidden: int, groups: list[Decoding]) -> None:
        self._slabs = [group.slab for group in groups]  # what the tape points into
        self._space = _Space(layers[0], tokens, hidden, groups)
        self._tape = Tape()
        first = layers[0].first_norm
        layers[0].rows.norm(self._space.x, first.weight, first.variance_epsilon, self._space.normed, self._tape)
        following = [layer.first_norm for layer in layers[1:]]
        for layer, norm in zip(layers, [*following, None], strict=True):
            layer.record(self._space, groups, norm, self._tape)

    def play(self, x: torch.Tensor, angles: Angles, groups: list[Decoding]) -> torch.Tensor:
        space = self._space
        for to, given in zip((space.x, space.cos, space.sin), (x, *angles), strict=True):
            to.copy_(given)
        for group, slots, past in zip(groups, space.slots, space.past, strict=True):
            slots.copy_(group.index(slots.device))
            past.copy_(group.positions(past.device))
        self._tape.play()
        return space.mixed + space.x


class Stack:
    """The layers together: where a step can be played from a tape, the first layer plays it for all."""

    def __init__(self, layers: list[Any], rows: Rows) -> None:
        self._replaced = layers
        self._layers = [_FusedLayer(layer, rows) for layer in layers]
        self._recordable = all(layer.recordable for layer in self._layers)
        self._recorded: OrderedDict[tuple[Any, ...], _Recorded] = OrderedDict()
        for place, replaced in enumerate(layers):
            replaced.forward = self._forward_of(place)

    def undo(self) -> None:
        """Lets the layers run as they did before."""
        for layer in self._replaced:
            del layer.forward

    def forget(self) -> None:
        """Forgets what was recorded, with the windows and slabs that it was recorded for."""
        self._recorded.clear()

    def _forward_of(self, place: int) -> Callable[..., torch.Tensor]:
        """What takes the place of a layer's `forward`."""

        def forward(
            hidden_states: torch.Tensor, position_embeddings: tuple[torch.Tensor, torch.Tensor], **others: Any
        ) -> torch.Tensor:
            batch: Batch = others[BATCH]
            if self._plays(batch):
                if place:
                    return hidden_states
                return self._play(hidden_states[0], _angles(position_embeddings), batch)[None]
            return self._layers[place].run(hidden_states[0], _angles(position_embeddings), batch)[None]

        return forward

    def _plays(self, batch: Batch) -> bool:
        if batch.prefilling or not self._recordable:
            return False
        kernels = [(group.slab, self._layers[0].kernel(group.slab)) for group in batch.decoding]
        return all(kernel is not None and slab.capacity % kernel.unit == 0 for slab, kernel in kernels)

    def _play(self, x: torch.Tensor, angles: Angles, batch: Batch) -> torch.Tensor:
        groups = batch.decoding
        places = [(id(group.slab), group.slab.moves, len(group.slots)) for group in groups]
        key = (torch.get_num_threads(), *places)
        recorded = self._recorded.get(key)
        if recorded is None:
            recorded = self._recorded[key] = _Recorded(self._layers, x.shape[0], x.shape[1], groups)
            if len(self._recorded) > _KEPT:
                self._recorded.popitem(last=False)
        self._recorded.move_to_end(key)
        return recorded.play(x, angles, groups)


def _angles(position_embeddings: tuple[torch.Tensor, torch.Tensor]) -> Angles:
    cos, sin = position_embeddings
    return cos[0].contiguous(), sin[0].contiguous()


def layer_name(module: nn.Module) -> str:
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
