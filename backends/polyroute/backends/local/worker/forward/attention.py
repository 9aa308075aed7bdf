"""Attention over packed tokens: one row holds a token of each sequence that decodes and chunks of prompts beside them.

transformers calls it in the place of its own, through `AttentionInterface`, so the model's code stays as it is. What
an architecture asks of attention (scaling, window, soft cap, sinks) arrives as keywords, and each is honoured; one that
is not known here is refused, and the model goes another way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - as everybody calls it
from transformers import AttentionInterface

from polyroute.backends.local.worker.compute.decode import DecodeAttention, decode_attention
from polyroute.backends.local.worker.forward.batch import BATCH, Batch, Decoding, Fixed, Prefilling
from polyroute.backends.local.worker.forward.slabs import LayerShape
from polyroute.backends.local.worker.gpu.attention import SlotAttention

NAME = "polyroute_packed"

_HARMLESS = {  # keywords that say nothing about what attention computes here
    "is_causal",
    "position_ids",
    "use_cache",
    "cache_position",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "return_dict",
    "logits_to_keep",
    "past_key_values",
    "position_embeddings",
    "token_type_ids",
}


class NotPackable(Exception):
    """The model's attention does not work over packed tokens; the text says why."""


def packed_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """`query` [1, heads, tokens, width], `key` and `value` [1, KV heads, tokens, width].

    Returns [1, tokens, heads, value width], and None for the weights. Raises `NotPackable` where the model asks
    for something that is not known here.
    """
    batch = others.pop(BATCH, None)
    layer = getattr(module, "layer_idx", None)
    if batch is None or layer is None:
        raise NotPackable("its attention is called without what a step passes through it")
    unknown = [name for name, given in others.items() if given is not None and name not in _HARMLESS]
    if unknown or query.shape[0] != 1:
        raise NotPackable(f"its attention takes {unknown[0]}" if unknown else "its attention regroups tokens")
    style = Style(scaling if scaling is not None else query.shape[-1] ** -0.5, sliding_window, softcap, s_aux)
    if batch.shapes is not None:
        if layer in batch.shapes:
            raise NotPackable("a layer attends twice")
        batch.dtype = key.dtype
        batch.shapes[layer] = LayerShape(key.shape[1], key.shape[-1], value.shape[-1])
        return query.new_zeros(1, query.shape[2], query.shape[1], value.shape[-1]), None
    return attend(batch, layer, query[0], key[0], value[0], style)[None], None


@dataclass(frozen=True, slots=True)
class Style:
    """What an architecture asks of a layer's attention."""

    scaling: float
    window: int | None
    softcap: float | None
    sinks: torch.Tensor | None  # [heads]: a score each, which takes part in the softmax and has no value


def attend(
    batch: Batch, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, style: Style
) -> torch.Tensor:
    """Takes in and attends to a row of tokens: [heads, tokens, width] each; returns [tokens, heads, value width]."""
    out = query.new_empty(query.shape[1], query.shape[0], value.shape[-1])
    if batch.kernels is not None:
        _attend_by_kernels(batch, batch.kernels, layer, query, key, value, style, out)
        return out
    for group in batch.decoding:
        _decode(group, layer, query, key, value, style, out)
    for fixed in batch.fixed:
        _decode_fixed(fixed, layer, query, key, value, style, out)
    for chunk in batch.prefilling:
        _prefill(chunk, layer, query, key, value, style, out)
    return out


def _attend_by_kernels(
    batch: Batch,
    kernels: SlotAttention,
    layer: int,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    style: Style,
    out: torch.Tensor,
) -> None:
    for slab, tiles in batch.tiles(kernels.tile_tokens(query, key, value), query.device):
        kernels.run(
            query,
            key,
            value,
            slab.keys[layer],
            slab.values[layer],
            out,
            tiles,
            scaling=style.scaling,
            window=style.window,
            softcap=style.softcap,
            sinks=style.sinks,
        )


def _decode(
    group: Decoding,
    layer: int,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    style: Style,
    out: torch.Tensor,
) -> None:
    """One token of each sequence."""
    n, rows, heads = len(group.slots), group.rows, key.shape[0]
    here = slice(group.start, group.stop)
    index, positions = group.index(query.device), group.positions(query.device)
    keys, values = group.slab.keys[layer], group.slab.values[layer]
    compiled = _compiled(query, key, value, keys.dtype)
    if compiled is not None and group.slab.capacity % compiled.unit == 0:
        compiled.run(
            query[:, here],
            key[:, here],
            value[:, here],
            keys,
            values,
            index,
            positions,
            out[here],
            scaling=style.scaling,
            window=style.window,
            softcap=style.softcap,
            sinks=style.sinks,
        )
        return
    keys[index, :, :, positions] = key[:, here].transpose(0, 1).to(keys.dtype)
    values[index, :, positions] = value[:, here].transpose(0, 1).to(values.dtype)
    asked = query[:, here].transpose(0, 1).reshape(n, heads, -1, query.shape[-1])
    if n < rows:  # a slot between them is still being read, or paused: it is computed along, and thrown away
        spread = asked.new_zeros(rows, *asked.shape[1:])
        spread[index] = asked
        asked = spread
    asked = asked.reshape(rows * heads, -1, asked.shape[-1])
    first, end = group.first(style.window), max(group.past) + 1
    mask = group.mask(style.window, query, heads)
    seen_keys = keys[:rows].flatten(0, 1)[:, :, first:end].to(query.dtype)
    seen_values = values[:rows].flatten(0, 1)[:, first:end].to(query.dtype)
    found = _attend(asked, seen_keys, seen_values, mask, style, heads)
    found = found.view(rows, -1, found.shape[-1])
    out[here] = found[index] if n < rows else found


def _decode_fixed(
    group: Fixed,
    layer: int,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    style: Style,
    out: torch.Tensor,
) -> None:
    """One token of each slot, by operations whose shapes and addresses hang on no sequence."""
    rows, heads, width = group.rows, key.shape[0], query.shape[-1]
    here = slice(group.start, group.stop)
    keys, values = group.slab.keys[layer], group.slab.values[layer]
    keys[group.slots, :, :, group.past] = key[:, here].transpose(0, 1).to(keys.dtype)
    values[group.slots, :, group.past] = value[:, here].transpose(0, 1).to(values.dtype)
    asked = query[:, here].transpose(0, 1).reshape(rows * heads, -1, width)
    seen_keys, seen_values = (of[:rows].flatten(0, 1).to(query.dtype) for of in (keys, values))
    found = _attend(asked, seen_keys, seen_values, group.mask(style.window, query, heads), style, heads)
    out[here] = found.view(rows, -1, found.shape[-1])


def _compiled(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, dtype: torch.dtype
) -> DecodeAttention | None:
    if query.device.type != "cpu" or key.dtype is not torch.float32:
        return None
    return decode_attention(query.shape[0] // key.shape[0], key.shape[2], value.shape[2], dtype)


def _prefill(
    chunk: Prefilling,
    layer: int,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    style: Style,
    out: torch.Tensor,
) -> None:
    heads, width = key.shape[0], query.shape[-1]
    here, end = slice(chunk.start, chunk.start + chunk.count), chunk.past + chunk.count
    keys, values = chunk.slab.keys[layer][chunk.slot], chunk.slab.values[layer][chunk.slot]
    keys[:, :, chunk.past : end] = key[:, here].transpose(1, 2)
    values[:, chunk.past : end] = value[:, here]
    groups = query.shape[0] // heads
    # The queries that share a KV head become one longer query: no copies of keys, and no slow grouped kernels.
    asked = query[:, here].reshape(heads, groups * chunk.count, width)
    first = chunk.first(style.window)
    mask = chunk.mask(style.window, query, groups)
    seen_keys, seen_values = keys[:, :, first:end].to(query.dtype), values[:, first:end].to(query.dtype)
    if style.softcap is None and style.sinks is None:
        seen_keys = seen_keys.transpose(1, 2).contiguous()
        found = F.scaled_dot_product_attention(
            asked[None], seen_keys[None], seen_values[None], attn_mask=mask, scale=style.scaling
        )[0]
    else:
        found = _attend(asked, seen_keys, seen_values, mask[None], style, heads)
    out[here] = found.reshape(query.shape[0], chunk.count, -1).transpose(0, 1)  # CUDA's has strides of its own


def _attend(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor | None,
    style: Style,
    heads: int,
) -> torch.Tensor:
    """`query` [n * KV heads, q, width], `keys` [n * KV heads, width, positions], `values` [..., positions, width]."""
    if mask is not None and not style.softcap:
        scores = torch.baddbmm(mask, query, keys, alpha=style.scaling)
    else:
        scores = torch.bmm(query, keys).mul_(style.scaling)
        if style.softcap:
            scores = torch.tanh(scores / style.softcap) * style.softcap
        if mask is not None:
            scores = scores + mask
    if style.sinks is None:
        weights = torch.softmax(scores, -1, dtype=torch.float32)
    else:
        sinks = _sink_scores(style.sinks, scores, heads)
        weights = torch.softmax(torch.cat([scores, sinks], -1), -1, dtype=torch.float32)[..., :-1]
    return torch.bmm(weights.to(values.dtype), values)


def _sink_scores(sinks: torch.Tensor, scores: torch.Tensor, heads: int) -> torch.Tensor:
    """Each query head's sink beside its scores, [n * KV heads, q, 1]; q counts a KV head's groups, then tokens."""
    n, asked = scores.shape[0] // heads, scores.shape[1]
    groups = sinks.numel() // heads
    spread = sinks.view(1, heads, groups, 1).expand(n, -1, -1, asked // groups)
    return spread.reshape(n * heads, asked, 1).to(scores.dtype)


AttentionInterface.register(NAME, packed_attention)  # and no mask: transformers then makes none, nor looks for one
