"""Chooses what computes a model's linear layers on this processor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from polyroute.backends.local.worker.compute import jit, onednn
from polyroute.backends.local.worker.compute.kernels import Kernel, kernel
from polyroute.backends.local.worker.failures import LoadError

_SMALL = 256  # a layer with fewer outputs decides rather than computes (a router of experts): it is not quantised
_VECTORS = {4: "128-bit vectors", 8: "AVX2", 16: "AVX-512"}


class Product(Protocol):
    """The weights of a linear layer, ready to be multiplied with."""

    def run(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in_features] -> [..., out_features], bias included."""


@dataclass(frozen=True, slots=True)
class Maker:
    """How layers are made: `make(weight [out, in], bias, is_head)`. `widens`: they want and give float32.

    `coarse`: their weights lose more than rounding to 8 bits does."""

    make: Callable[[torch.Tensor, torch.Tensor | None, bool], Product]
    widens: bool
    words: str
    coarse: bool = False


def choose(dtype: torch.dtype, quantization: str | None) -> Maker | None:
    """What is fastest and correct here for weights of `dtype`; None is torch's own layers."""
    name = str(dtype).removeprefix("torch.")
    if quantization is not None:
        return _quantized(name, quantization)
    plain = kernel(name)
    matrices = "amx-bf16" in jit.processor().features  # whole tiles of bfloat16, which only oneDNN multiplies
    if dtype == torch.bfloat16 and (plain is None or plain.rounding is None or matrices) and onednn.usable(dtype):
        return _prepacked(name)
    if plain is not None:
        return Maker(lambda weight, bias, _: plain.layer(weight, bias), True, f"{name} weights, {_own(plain)}")
    return _prepacked(name) if dtype == torch.float32 and onednn.usable(dtype) else None


def _prepacked(name: str) -> Maker:
    return Maker(lambda weight, bias, _: onednn.Prepacked(weight, bias), False, f"{name} in oneDNN's prepacked layers")


def _quantized(name: str, quantization: str) -> Maker:
    coarse, head, plain = _need(quantization), _need("int8"), _need(name)

    def make(weight: torch.Tensor, bias: torch.Tensor | None, is_head: bool) -> Product:
        if weight.shape[0] < _SMALL:
            return plain.layer(weight, bias)
        chosen = head if is_head else coarse
        if weight.shape[1] % chosen.form.group_inputs:
            chosen = plain  # rows of no whole groups
        return chosen.layer(weight, bias)

    return Maker(make, True, f"{quantization} weights, {_own(coarse)}", coarse=quantization == "int4")


def _need(name: str) -> Kernel:
    found = kernel(name)
    if found is None:
        raise LoadError(f"`quantization` cannot be had: there is no working kernel for {name} on this processor")
    return found


def _own(used: Kernel) -> str:
    arithmetic = used.form.arithmetic.name
    return f"{arithmetic} arithmetic in kernels made for this processor ({_VECTORS[jit.processor().width]})"
