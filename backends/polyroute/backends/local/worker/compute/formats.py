"""How weights lie in memory for the kernels: panels of adjacent output channels, and how a panel is read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch.nn.functional import pad

from polyroute.backends.local.worker.compute.arithmetic import PAIRS, SINGLES, Arithmetic
from polyroute.backends.local.worker.compute.emit import Function
from polyroute.backends.local.worker.compute.transpose import transposed

NEVER = 1 << 62  # rows
_CHUNK = 1 << 19  # weights that are packed at a time, so that copies in between stay in the cache


@dataclass(slots=True)
class Packed:
    """Weights [out_features, in_features] as panels, `columns` output channels in each."""

    panels: torch.Tensor
    out_features: int
    in_features: int
    columns: int


class Format(ABC):
    """One kind of weights. A panel holds `2 * width` output channels, for each place (see `arithmetic`) in turn.

    `step` is how many places a kernel reads at once, `group` how many of them share scales; both divide the
    number that there are. From `wide_rows` rows of x on, widening a panel ahead pays (measured on AMD Milan).
    """

    name: str
    bits: float
    arithmetic: Arithmetic = SINGLES
    step: int = 1
    group: int | None = None
    wide_rows: int = 64

    def pack(self, weight: torch.Tensor, width: int) -> Packed:
        """Packs weights [out_features, in_features] of any floating type."""
        outputs, inputs = weight.shape
        columns = 2 * width
        panels = self.empty(-(-outputs // columns), inputs, columns)
        rows = max(1, _CHUNK // (inputs * columns)) * columns
        for start in range(0, outputs, rows):
            part = weight[start : start + rows]
            part = pad(part, (0, 0, 0, -len(part) % columns)).contiguous().view(-1, columns, inputs)
            first = start // columns
            self.fill(part, panels[first : first + len(part)])
        return Packed(panels, outputs, inputs, columns)

    @property
    def group_inputs(self) -> int:
        """How many input channels share scales: their number must be a multiple of it."""
        return (self.group or 1) * (self.arithmetic.inputs if self.group else 1)

    @abstractmethod
    def empty(self, panels: int, inputs: int, columns: int) -> torch.Tensor:
        """Room for that many panels."""

    @abstractmethod
    def fill(self, weights: torch.Tensor, panels: torch.Tensor) -> None:
        """Packs contiguous weights [panels, columns, inputs] into `panels`."""

    @abstractmethod
    def unpack(self, packed: Packed, rows: torch.Tensor) -> torch.Tensor:
        """The weights of output channels [...] as they count in a product: float32 [..., inputs]."""

    @abstractmethod
    def row(self, f: Function, panel: str, k: str) -> str:
        """The address of place `k` of the panel at `panel`; `k` is a multiple of the group, or of the step."""

    @abstractmethod
    def read(self, f: Function, panel: str, k: str) -> list[tuple[str, str]]:
        """Both vectors of weights, as the arithmetic takes them, of each of the places `k` to `k + step`; within a
        group, of which `panel` is the address, where there are groups."""


class Floats(Format):
    """float32 or float16: a row of a panel after the other."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.name = str(dtype).removeprefix("torch.")
        self.bits = dtype.itemsize * 8
        self.kind = {torch.float32: "float", torch.float16: "half"}[dtype]
        if dtype == torch.float32:
            self.wide_rows = NEVER

    def empty(self, panels: int, inputs: int, columns: int) -> torch.Tensor:
        return torch.empty(panels, inputs, columns, dtype=self.dtype)

    def fill(self, weights: torch.Tensor, panels: torch.Tensor) -> None:
        transposed(weights.to(self.dtype), panels)

    def unpack(self, packed: Packed, rows: torch.Tensor) -> torch.Tensor:
        return packed.panels[rows // packed.columns, :, rows % packed.columns].float()

    def row(self, f: Function, panel: str, k: str) -> str:
        return f.at(panel, f.mul(k, str(2 * f.width)), self.kind)

    def read(self, f: Function, panel: str, k: str) -> list[tuple[str, str]]:
        row = self.row(f, panel, k)
        return [(self._half(f, row, 0), self._half(f, row, f.width))]

    def _half(self, f: Function, row: str, first: int) -> str:
        raw = f.load(f"<{f.width} x {self.kind}>", f.at(row, str(first), self.kind))
        return raw if self.kind == "float" else f.let(f"fpext <{f.width} x half> {raw} to {f.vector}")


class BFloat16(Format):
    """bfloat16: channels `j` and `j + width` lie side by side, so that a shift and a mask make two float32 of them."""

    name = "bfloat16"
    bits = 16

    def empty(self, panels: int, inputs: int, columns: int) -> torch.Tensor:
        return torch.empty(panels, inputs, columns, dtype=torch.bfloat16)

    def fill(self, weights: torch.Tensor, panels: torch.Tensor) -> None:
        transposed(weights.to(torch.bfloat16), panels, paired=True)

    def unpack(self, packed: Packed, rows: torch.Tensor) -> torch.Tensor:
        column, width = rows % packed.columns, packed.columns // 2
        place = column % width * 2 + column // width
        return packed.panels[rows // packed.columns, :, place].float()

    def row(self, f: Function, panel: str, k: str) -> str:
        return f.at(panel, f.mul(k, str(2 * f.width)), "i16")

    def read(self, f: Function, panel: str, k: str) -> list[tuple[str, str]]:
        raw = f.load(f.integers, self.row(f, panel, k))
        low = f.let(f"shl {f.integers} {raw}, {f.constant(16)}")
        high = f.let(f"and {f.integers} {raw}, {f.constant(-65536)}")
        first, second = (f.let(f"bitcast {f.integers} {value} to {f.vector}") for value in (low, high))
        return [(first, second)]


class BFloat16Pairs(Format):
    """bfloat16 for processors that multiply pairs of them: two adjacent input channels lie side by side, the second
    zero where their number is odd."""

    name = "bfloat16"
    bits = 16
    arithmetic = PAIRS
    wide_rows = NEVER

    def empty(self, panels: int, inputs: int, columns: int) -> torch.Tensor:
        return torch.empty(panels, -(-inputs // 2), columns, dtype=torch.int32)

    def fill(self, weights: torch.Tensor, panels: torch.Tensor) -> None:
        halves = pad(weights.to(torch.bfloat16), (0, weights.shape[2] % 2)).contiguous()
        transposed(halves.view(torch.int32), panels)

    def unpack(self, packed: Packed, rows: torch.Tensor) -> torch.Tensor:
        places = packed.panels[rows // packed.columns, :, rows % packed.columns].contiguous()
        return places.view(torch.bfloat16)[..., : packed.in_features].float()

    def row(self, f: Function, panel: str, k: str) -> str:
        return f.at(panel, f.mul(k, str(2 * f.width)), "i32")

    def read(self, f: Function, panel: str, k: str) -> list[tuple[str, str]]:
        row = self.row(f, panel, k)
        first, second = (f.load(f.integers, f.at(row, str(half * f.width), "i32")) for half in range(2))
        return [(first, second)]


def plain(arithmetic: Arithmetic) -> Format:
    """Weights as the arithmetic takes them, one place after the other."""
    return Floats(torch.float32) if arithmetic is SINGLES else BFloat16Pairs()
