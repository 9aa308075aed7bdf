"""How weights lie in memory for the kernels: panels of adjacent output channels, and how one row of a panel is read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch.nn.functional import pad

from polyroute.backends.local.worker.compute.emit import Function

GROUP = 32
"""How many input channels of an output channel share a scale in int4."""


@dataclass(slots=True)
class Packed:
    """Weights [out_features, in_features] as panels; `scale` holds one float32 an output channel, padded to panels."""

    panels: torch.Tensor
    scale: torch.Tensor | None
    out_features: int
    in_features: int
    columns: int


class Format(ABC):
    """One kind of weights. A panel holds `2 * width` output channels, for each input channel in turn.

    `step` is how many input channels a kernel reads at once, and divides those that there are. `scaled`: sums are to
    be multiplied by `Packed.scale`. `group`: how many input channels share scales of their own."""

    name: str
    bits: int
    step: int = 1
    scaled = False
    group: int | None = None

    @abstractmethod
    def pack(self, weight: torch.Tensor, width: int) -> Packed:
        """Packs weights [out_features, in_features]."""

    @abstractmethod
    def unpack(self, packed: Packed, rows: torch.Tensor | None = None) -> torch.Tensor:
        """The weights of some output channels (all of them for None) as they count in a product, float32."""

    @abstractmethod
    def row(self, f: Function, panel: str, k: str) -> str:
        """The address of input channel `k` of the panel at `panel`; `k` is a multiple of the group, or of the step."""

    @abstractmethod
    def read(self, f: Function, panel: str, k: str) -> list[tuple[str, str]]:
        """Both vectors of float32 weights of each of the input channels `k` to `k + step`."""


def tiles(weight: torch.Tensor, columns: int) -> torch.Tensor:
    """Weights [out_features, in_features] as panels [panels, columns, in_features], zeros at the end."""
    padding = -weight.shape[0] % columns
    if padding:
        weight = pad(weight, (0, 0, 0, padding))
    return weight.view(-1, columns, weight.shape[1])


class Floats(Format):
    """float32 or float16: a row of a panel after the other."""

    bits: int

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.name = str(dtype).removeprefix("torch.")
        self.bits = dtype.itemsize * 8
        self.kind = {torch.float32: "float", torch.float16: "half", torch.int8: "i8"}[dtype]

    def pack(self, weight: torch.Tensor, width: int) -> Packed:
        panels = tiles(weight.to(self.dtype), 2 * width).transpose(1, 2).contiguous()
        return Packed(panels, None, weight.shape[0], weight.shape[1], 2 * width)

    def unpack(self, packed: Packed, rows: torch.Tensor | None = None) -> torch.Tensor:
        if rows is None:
            rows = torch.arange(packed.out_features)
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

    def pack(self, weight: torch.Tensor, width: int) -> Packed:
        panels = tiles(weight.to(torch.bfloat16), 2 * width)
        halves = panels.view(panels.shape[0], 2, width, -1)
        panels = halves.permute(0, 3, 2, 1).contiguous()  # [panels, inputs, width, 2]
        return Packed(panels.flatten(2), None, weight.shape[0], weight.shape[1], 2 * width)

    def unpack(self, packed: Packed, rows: torch.Tensor | None = None) -> torch.Tensor:
        if rows is None:
            rows = torch.arange(packed.out_features)
        column = rows % packed.columns
        width = packed.columns // 2
        place = column % width * 2 + column // width
        return packed.panels[rows // packed.columns, :, place].float()

    def row(self, f: Function, panel: str, k: str) -> str:
        return f.at(panel, f.mul(k, str(2 * f.width)), "i16")

    def read(self, f: Function, panel: str, k: str) -> list[tuple[str, str]]:
        row = self.row(f, panel, k)
        raw = f.load(f.integers, row)
        low = f.let(f"shl {f.integers} {raw}, {f.constant(16)}")
        high = f.let(f"and {f.integers} {raw}, {f.constant(-65536)}")
        return [
            (
                f.let(f"bitcast {f.integers} {low} to {f.vector}"),
                f.let(f"bitcast {f.integers} {high} to {f.vector}"),
            )
        ]


class Int8(Floats):
    """int8 with a float32 scale for each output channel, symmetric."""

    scaled = True

    def __init__(self) -> None:
        super().__init__(torch.int8)

    def pack(self, weight: torch.Tensor, width: int) -> Packed:
        values = weight.float()
        scale = values.abs().amax(1).clamp_(min=torch.finfo(torch.float32).tiny) / 127
        packed = super().pack((values / scale[:, None]).round_().clamp_(-127, 127), width)
        packed.scale = pad(scale, (0, -len(scale) % packed.columns))
        return packed

    def unpack(self, packed: Packed, rows: torch.Tensor | None = None) -> torch.Tensor:
        assert packed.scale is not None  # noqa: S101 - for the type checker
        scale = packed.scale[: packed.out_features] if rows is None else packed.scale[rows]
        return super().unpack(packed, rows) * scale[..., None]

    def _half(self, f: Function, row: str, first: int) -> str:
        raw = f.load(f"<{f.width} x i8>", f.at(row, str(first), "i8"))
        wide = f.let(f"sext <{f.width} x i8> {raw} to {f.integers}")
        return f.let(f"sitofp {f.integers} {wide} to {f.vector}")
