"""Puts packed layers in the place of a model's own, several of one input together."""

from __future__ import annotations

import inspect
import re
from functools import cache
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from polyroute.backends.local.worker.compute.experts import packed_experts
from polyroute.backends.local.worker.compute.kernels import Layer
from polyroute.backends.local.worker.compute.layers import Maker
from polyroute.backends.local.worker.compute.linear import Embedding, Linear, Part, Whole

_TOGETHER = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Layers that are called one after the other with the very same input, in this order, wherever they are so named."""

_LOOKED_UP = 8  # rows of an embedding that are compared
_ROUNDING = 0.02  # of the largest number of them: more than 8 bits lose


def replace_layers(model: Any, maker: Maker) -> None:
    """Replaces every `nn.Linear`, `Conv1D` and set of experts; its weights are let go as soon as they are packed."""
    head = model.get_output_embeddings()
    tied = head is not None and head.weight is model.get_input_embeddings().weight
    for module in list(model.modules()):
        for names in _TOGETHER:
            _join(module, names, maker)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear or type(child) is Conv1D:
                if _reads_weight(module, name):
                    continue
                weight = child.weight.detach() if type(child) is nn.Linear else child.weight.detach().t()
                bias = None if child.bias is None else child.bias.detach()
                product = maker.make(weight, bias, child is head)
                setattr(module, name, Linear(product, weight.shape[1], weight.shape[0]))
                if child is head and tied and isinstance(product, Layer):
                    _share(model, product)
            elif maker.widens and (experts := packed_experts(child, maker)) is not None:
                setattr(module, name, experts)


def _join(module: nn.Module, names: tuple[str, ...], maker: Maker) -> None:
    found: list[Any] = [getattr(module, name, None) for name in names]
    if not all(type(child) is nn.Linear for child in found) or any(_reads_weight(module, name) for name in names):
        return
    if len({child.in_features for child in found}) > 1 or len({child.bias is None for child in found}) > 1:
        return
    weight = torch.cat([child.weight.detach() for child in found])
    bias = None if found[0].bias is None else torch.cat([child.bias.detach() for child in found])
    whole = Whole(maker.make(weight, bias, False), [child.out_features for child in found])
    for place, (name, child) in enumerate(zip(names, found, strict=True)):
        setattr(module, name, Part(whole, place, child.in_features, child.out_features))


def _reads_weight(module: nn.Module, name: str) -> bool:
    """Whether the module's code computes with its child's weights itself, as Mamba's does: they must then stay."""
    pattern = rf"\bself\.{re.escape(name)}\.(weight|bias)\b(?!\.(dtype|device))"
    return re.search(pattern, _source(type(module))) is not None  # type: ignore[arg-type]


@cache
def _source(kind: type) -> str:
    """The code of a class, once: finding it takes the parse of its whole file. Empty where it was made at run time."""
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        return ""


def _share(model: Any, layer: Layer) -> None:
    """Has the input embedding read the output layer's weights, where it does no more than look up and scale."""
    own = model.get_input_embeddings()
    if not isinstance(own, nn.Embedding) or own.max_norm is not None:
        return
    scale = getattr(own, "embed_scale", 1.0)
    shared = Embedding(layer, float(torch.as_tensor(scale).to(own.weight.dtype)))
    ids = torch.linspace(0, own.num_embeddings - 1, _LOOKED_UP).long()
    with torch.inference_mode():
        wanted = own(ids).float()
        if torch.allclose(shared(ids), wanted, rtol=0, atol=_ROUNDING * float(wanted.abs().max())):
            model.set_input_embeddings(shared)
