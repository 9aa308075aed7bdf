"""Turns what packed layers leave of a model into float32, its large tables aside."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

_LARGE = 1 << 22  # elements: larger tensors stay as they are, and what they are used with is converted


def widen(model: Any) -> None:
    """Converts parameters and buffers to float32 in place, each on its own; none still lies in a checkpoint's map."""
    for module in list(model.modules()):
        if isinstance(module, nn.Embedding):
            _keep_table(module)
            continue
        large = [p for p in module.parameters(recurse=False) if p.numel() > _LARGE and p.dtype != torch.float32]
        for parameter in module.parameters(recurse=False):
            if parameter.is_floating_point() and not large:
                parameter.data = parameter.data.to(torch.float32, copy=True)
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_floating_point() and not large:
                setattr(module, name, buffer.to(torch.float32, copy=True))
        if large:
            _compute_in(module, large[0].dtype)
    for config in (model.config, model.config.get_text_config(decoder=True)):
        config.dtype = torch.float32


def _keep_table(module: nn.Embedding) -> None:
    """Rows are converted after they are looked up. The table becomes a buffer, so that it does not set the model's
    dtype, which transformers takes from the first parameter."""
    table = module.weight.detach().clone()
    del module.weight
    module.register_buffer("weight", table, persistent=False)
    module.register_forward_hook(lambda _module, _inputs, output: output.float())


def _compute_in(module: nn.Module, dtype: torch.dtype) -> None:
    """Lets a module whose weights stay in `dtype` compute in it, between inputs and outputs of float32."""
    module.register_forward_pre_hook(
        lambda _module, args, kwargs: (_cast(args, dtype), _cast(kwargs, dtype)), with_kwargs=True
    )
    module.register_forward_hook(lambda _module, _inputs, output: _cast(output, torch.float32))


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, tuple | list):
        return type(value)(_cast(item, dtype) for item in value)
    if isinstance(value, dict):
        return {name: _cast(item, dtype) for name, item in value.items()}
    return value
