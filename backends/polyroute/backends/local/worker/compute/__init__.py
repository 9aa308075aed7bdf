"""Makes a loaded model's layers fast on this machine, in place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from polyroute.backends.local.worker.compute import jit
from polyroute.backends.local.worker.compute.arithmetic import multiplies_pairs
from polyroute.backends.local.worker.compute.layers import choose
from polyroute.backends.local.worker.compute.replace import replace_layers
from polyroute.backends.local.worker.compute.widen import widen
from polyroute.backends.local.worker.failures import LoadError

__all__ = ["Prepared", "prepare"]


@dataclass(frozen=True, slots=True)
class Prepared:
    """What was done to a model, in words for the log; `kv_dtype` is what its keys and values are kept in, where that is
    not what they are computed in."""

    words: str
    kv_dtype: torch.dtype | None = None


def prepare(model: Any, *, quantization: str | None) -> Prepared:
    """Replaces the linear layers of `model`, a transformers causal language model in evaluation mode, by faster ones.

    `quantization` is None, `int8` or `int4`. What the model computes stays the same but for rounding, which
    quantization adds to. Where weights of 16 bits are computed with in float32, everything else becomes float32, but
    for keys and values of bfloat16 where the processor rounds to it. Raises `LoadError` where `quantization` cannot be
    had.
    """
    dtype = model.dtype
    name = str(dtype).removeprefix("torch.")
    if model.device.type != "cpu":
        if quantization is not None:
            raise LoadError(f"`quantization: {quantization}` is for models on the CPU; this one is on {model.device}")
        return Prepared(f"{name} on {model.device}")
    maker = choose(dtype, quantization)
    if maker is None:
        return Prepared(f"{name} in torch's own layers")
    replace_layers(model, maker)
    if not maker.widens:
        return Prepared(maker.words)
    widen(model)
    halves = dtype == torch.bfloat16 and multiplies_pairs(jit.processor())
    return Prepared(maker.words, dtype if halves else None)
