"""How the products inside a matrix product are computed: in float32, two at a time in bfloat16, or four in int8.

A *place* is what one 32-bit element of a row of x holds: an input channel in float32, two adjacent ones in bfloat16, or
four in int8.
"""

from __future__ import annotations

from typing import Final, Protocol

from polyroute.backends.local.worker.compute.emit import Function
from polyroute.backends.local.worker.compute.jit import Processor


class Arithmetic(Protocol):
    """`inputs` channels to a place; `scalar` is a place's type in LLVM."""

    @property
    def name(self) -> str: ...

    @property
    def inputs(self) -> int: ...

    @property
    def scalar(self) -> str: ...

    def declarations(self, width: int) -> str:
        """What a module must declare for `term`."""

    def vector(self, f: Function) -> str:
        """The type of a vector of weights, one place of each output channel."""

    def term(self, f: Function, x: str, weights: str, total: str) -> str:
        """`total` and the products of weights with one place of x, which is given as a scalar."""


class Singles:
    """float32, multiplied and added with one rounding."""

    name: Final = "float32"
    inputs: Final = 1
    scalar: Final = "float"

    def declarations(self, width: int) -> str:
        vector = f"<{width} x float>"
        return f"declare {vector} @llvm.fma.v{width}f32({vector}, {vector}, {vector})\n"

    def vector(self, f: Function) -> str:
        return f.vector

    def term(self, f: Function, x: str, weights: str, total: str) -> str:
        return f.fma(f.splat(x), weights, total)


class Pairs:
    """Two products of bfloat16 at once, summed in float32 (x86: VDPBF16PS, Intel SDM volume 2): twice the rate."""

    name: Final = "bfloat16"
    inputs: Final = 2
    scalar: Final = "i32"

    def declarations(self, width: int) -> str:
        total, halves = f"<{width} x float>", f"<{2 * width} x bfloat>"
        return f"declare {total} @llvm.x86.avx512bf16.dpbf16ps.{32 * width}({total}, {halves}, {halves})\n"

    def vector(self, f: Function) -> str:
        return f.integers

    def term(self, f: Function, x: str, weights: str, total: str) -> str:
        halves = f"<{2 * f.width} x bfloat>"
        first, second = (f.let(f"bitcast {f.integers} {value} to {halves}") for value in (f.splat(x, "i32"), weights))
        name = f"@llvm.x86.avx512bf16.dpbf16ps.{32 * f.width}"
        return f.let(f"call {f.vector} {name}({f.vector} {total}, {halves} {first}, {halves} {second})")


class Fours:
    """Four products of unsigned weights with signed x, of 8 bits each, summed in int32 (x86: VPDPBUSD, Intel SDM volume
    2C). A group of input channels shares scales, so that what `term` sums is brought to float32 once a group."""

    name: Final = "int8"
    inputs: Final = 4
    scalar: Final = "i32"

    def declarations(self, width: int) -> str:
        totals, bytes_ = f"<{width} x i32>", f"<{4 * width} x i8>"
        return f"declare {totals} @llvm.x86.avx512.vpdpbusd.{32 * width}({totals}, {bytes_}, {bytes_})\n"

    def vector(self, f: Function) -> str:
        return f.integers

    def term(self, f: Function, x: str, weights: str, total: str) -> str:
        kind = f"<{4 * f.width} x i8>"
        first, second = (f.let(f"bitcast {f.integers} {value} to {kind}") for value in (weights, f.splat(x, "i32")))
        name = f"@llvm.x86.avx512.vpdpbusd.{32 * f.width}"
        return f.let(f"call {f.integers} {name}({f.integers} {total}, {kind} {first}, {kind} {second})")


SINGLES: Final[Arithmetic] = Singles()
PAIRS: Final[Arithmetic] = Pairs()
FOURS: Final[Arithmetic] = Fours()
GROUP: Final = 32
"""Input channels of x that share a scale, where x is of int8."""


def multiplies_pairs(processor: Processor) -> bool:
    """Whether the processor has an instruction for `Pairs`."""
    return "avx512bf16" in processor.features and processor.width == 16


def multiplies_fours(processor: Processor) -> bool:
    """Whether the processor has an instruction for `Fours`."""
    return "avx512vnni" in processor.features and processor.width == 16
