"""Puts packed layers in the place of a model's own, several of one input together."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from polyroute.backends.local.worker.compute.kernels import Layer
from polyroute.backends.local.worker.compute.layers import Maker
from polyroute.backends.local.worker.compute.linear import Embedding, Linear, Part, Whole

_TOGETHER = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Layers that are called one after the other with the very same input, in this order, wherever they are so named."""


def replace_linears(model: Any, maker: Maker) -> None:
    """Replaces every `nn.Linear` and `Conv1D`; each one's weights are let go as soon as they are packed."""
    head = model.get_output_embeddings()
    tied = head is not None and head.weight is model.get_input_embeddings().weight
    for module in list(model.modules()):
        for names in _TOGETHER:
            _join(module, names, maker)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear or type(child) is Conv1D:
                weight = child.weight.detach() if type(child) is nn.Linear else child.weight.detach().t()
                bias = None if child.bias is None else child.bias.detach()
                product = maker.make(weight, bias, child is head)
                setattr(module, name, Linear(product, weight.shape[1], weight.shape[0]))
                if child is head and tied and isinstance(product, Layer):
                    _share(model, product)


def _join(module: nn.Module, names: tuple[str, ...], maker: Maker) -> None:
    found: list[Any] = [getattr(module, name, None) for name in names]
    if not all(type(child) is nn.Linear for child in found):
        return
    if len({child.in_features for child in found}) > 1 or len({child.bias is None for child in found}) > 1:
        return
    weight = torch.cat([child.weight.detach() for child in found])
    bias = None if found[0].bias is None else torch.cat([child.bias.detach() for child in found])
    whole = Whole(maker.make(weight, bias, False), [child.out_features for child in found])
    for place, (name, child) in enumerate(zip(names, found, strict=True)):
        setattr(module, name, Part(whole, place, child.in_features, child.out_features))


def _share(model: Any, layer: Layer) -> None:
    """Has the input embedding read the output layer's weights, where it does nothing but look up."""
    embedding = model.get_input_embeddings()
    if type(embedding) is nn.Embedding and embedding.max_norm is None:
        model.set_input_embeddings(Embedding(layer, embedding.padding_idx))
