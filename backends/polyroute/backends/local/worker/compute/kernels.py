"""Compiled kernels for linear layers, each checked against torch before it is used."""

from __future__ import annotations

import ctypes
from functools import cache

import torch

from polyroute.backends.local.worker.compute import gemm, jit
from polyroute.backends.local.worker.compute.arithmetic import SINGLES, multiplies_fours, multiplies_pairs
from polyroute.backends.local.worker.compute.formats import BFloat16, BFloat16Pairs, Floats, Format, Packed
from polyroute.backends.local.worker.compute.integers import Int4Fours, Int8Fours
from polyroute.backends.local.worker.compute.openmp import parallel_entry
from polyroute.backends.local.worker.compute.quantized import Int4, Int8
from polyroute.backends.local.worker.compute.rounding import Rounding
from polyroute.backends.local.worker.compute.tape import Tape

_TOLERANCE = 1e-5


def formats(processor: jit.Processor) -> dict[str, Format]:
    """The kinds of weights that there are kernels for, by name."""
    halves = BFloat16Pairs() if multiplies_pairs(processor) else BFloat16()
    integers = (Int8Fours(), Int4Fours()) if multiplies_fours(processor) else (Int8(), Int4())
    forms = (halves, Floats(torch.float16), Floats(torch.float32), *integers)
    return {form.name: form for form in forms}


class Layer:
    """The weights of one linear layer, packed: `run` is its product with x, which is rounded to the arithmetic's own
    precision first."""

    def __init__(self, kernel: Kernel, packed: Packed, bias: torch.Tensor | None) -> None:
        self.packed = packed
        self.form = kernel.form
        self._bias = torch.zeros(packed.panels.shape[0] * packed.columns)
        if bias is not None:
            self._bias[: packed.out_features] = bias
        panels = packed.panels
        addresses = panels.data_ptr(), self._bias.data_ptr()
        self.places = kernel.places(packed.in_features)
        inputs = -(-packed.in_features // kernel.form.arithmetic.inputs)
        sizes = packed.out_features, inputs, panels.stride(0) * panels.itemsize
        self._fixed = torch.tensor([*addresses, *sizes, inputs, kernel.form.wide_rows, self.places])
        self._panels = panels.shape[0]
        self._address = self._fixed.data_ptr()
        self._function = kernel.function
        self._share = kernel.share
        self._rounding = kernel.rounding

    def run(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [..., in_features] -> float32 [..., out_features]."""
        if x.dtype is not torch.float32:
            x = x.float()
        x = x.contiguous()
        y = torch.empty((*x.shape[:-1], self.packed.out_features))
        rows = x.numel() // self.packed.in_features
        if self._rounding is not None:
            x = self._rounding.run(
                x.view(rows, self.packed.in_features), torch.empty(rows, self.places, dtype=torch.int32)
            )
        self._function(self._address, x.data_ptr(), y.data_ptr(), rows, self._panels, torch.get_num_threads())
        return y

    def record(self, x: torch.Tensor, y: torch.Tensor, room: torch.Tensor, tape: Tape) -> None:
        """Has the tape compute y [rows, out_features] of x [rows, in_features], both contiguous float32.

        `room` is int32, of at least rows * places elements: what x is rounded into where the arithmetic wants that.
        """
        threads = torch.get_num_threads()
        if self._rounding is not None:
            x = self._rounding.run(x, room.flatten()[: len(x) * self.places].view(len(x), -1), tape)
        arguments = self._address, x.data_ptr(), y.data_ptr(), x.shape[0], self._panels, threads
        tape.add(self._share, arguments, threads)


class Kernel:
    """The compiled product for one format of weights."""

    def __init__(self, form: Format) -> None:
        self.form = form
        self.width = jit.processor().width
        self.rounding = None if form.arithmetic is SINGLES else Rounding(form.arithmetic)
        self._library = jit.compile(gemm.source(form, jit.processor(), parallel_entry()))
        prototype = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3, *[ctypes.c_int64] * 3)
        self.function = prototype(self._library.address("linear"))
        self.share = self._library.address("share")

    def layer(self, weight: torch.Tensor, bias: torch.Tensor | None) -> Layer:
        """Packs weights [out_features, in_features] of any floating type, and their bias."""
        return Layer(self, self.form.pack(weight, self.width), bias)

    def places(self, inputs: int) -> int:
        """How many elements of 32 bits a row of x is handed over in."""
        return inputs if self.rounding is None else self.rounding.places(inputs)

    def rounded(self, x: torch.Tensor) -> torch.Tensor:
        """x [rows, in_features] as the arithmetic sees it, in float32."""
        return x if self.rounding is None else self.rounding.rounded(x)

    def agrees(self) -> bool:
        """Whether small random products are those of torch, for every number of rows that has code of its own."""
        generator = torch.Generator().manual_seed(0)
        for outputs, inputs in ((3 * self.width, 96), (2 * self.width + 1, 64)):
            weight = torch.randn(outputs, inputs, generator=generator)
            bias = torch.randn(outputs, generator=generator)
            layer = self.layer(weight, bias)
            exact = self.form.unpack(layer.packed, torch.arange(outputs)).double()
            for rows in (*range(1, 14), 33, 70):
                x = torch.randn(rows, inputs, generator=generator)
                wanted = self.rounded(x).double() @ exact.T + bias.double()
                if not torch.allclose(layer.run(x).double(), wanted, rtol=_TOLERANCE, atol=_TOLERANCE * inputs):
                    return False
        return True


@cache
def kernel(name: str) -> Kernel | None:
    """The kernel for weights of that format; None where it cannot be compiled here, or is wrong."""
    try:
        made = Kernel(formats(jit.processor())[name])
    except (RuntimeError, OSError):  # no LLVM for this processor
        return None
    return made if made.agrees() else None
