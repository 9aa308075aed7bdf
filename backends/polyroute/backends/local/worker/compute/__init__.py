"""Makes a loaded model's layers fast on this machine, in place."""

from __future__ import annotations

from typing import Any

from polyroute.backends.local.worker.compute.layers import choose
from polyroute.backends.local.worker.compute.replace import replace_layers
from polyroute.backends.local.worker.compute.widen import widen
from polyroute.backends.local.worker.failures import LoadError

__all__ = ["prepare"]


def prepare(model: Any, *, quantization: str | None) -> str:
    """Replaces the linear layers of `model`, a transformers causal language model in evaluation mode, by faster ones.

    `quantization` is None, `int8` or `int4`. What the model computes stays the same but for rounding, which
    quantization adds to. Where weights of 16 bits are computed with in float32, everything else becomes float32.
    Returns what was done, in words for the log; raises `LoadError` where `quantization` cannot be had.
    """
    if model.device.type != "cpu":
        if quantization is not None:
            raise LoadError(f"`quantization: {quantization}` is for models on the CPU; this one is on {model.device}")
        return f"{str(model.dtype).removeprefix('torch.')} on {model.device}"
    maker = choose(model.dtype, quantization)
    if maker is None:
        return f"{str(model.dtype).removeprefix('torch.')} in torch's own layers"
    replace_layers(model, maker)
    if maker.widens:
        widen(model)
    return maker.words
