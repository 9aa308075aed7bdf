"""Weights of 8 and 4 bits."""

from __future__ import annotations

import torch

from polyroute.backends.local.worker.compute.emit import Function
from polyroute.backends.local.worker.compute.formats import Format, Packed
from polyroute.backends.local.worker.compute.transpose import transposed

_SHRUNK = (1.0, 0.95, 0.9, 0.85, 0.8)  # parts of a group's range that are tried: cutting its ends off often errs less


class Int8(Format):
    """8 bits, symmetric; 32 weights of an output channel share a scale in float16, as in GGUF's Q8_0.

    A group of a panel holds the scales, then a row for each input channel.
    """

    name = "int8"
    bits = 8.5
    group = 32
    wide_rows = 32

    def empty(self, panels: int, inputs: int, columns: int) -> torch.Tensor:
        return torch.empty(panels, inputs // self.group, 2 + self.group, columns, dtype=torch.int8)

    def fill(self, weights: torch.Tensor, panels: torch.Tensor) -> None:
        count, columns, inputs = weights.shape
        groups = weights.float().view(count, columns, inputs // self.group, self.group)
        scale = scales(groups)
        values = (groups / scale).round_().clamp_(-127, 127).to(torch.int8)
        turned = torch.empty(count, inputs, columns, dtype=torch.int8)
        transposed(values.view(count, columns, inputs), turned)
        panels[:, :, 2:] = turned.view(count, -1, self.group, columns)
        halves = scale.squeeze(-1).transpose(1, 2).half().contiguous()
        panels[:, :, :2] = halves.view(torch.int8).view(count, -1, 2, columns)

    def unpack(self, packed: Packed, rows: torch.Tensor) -> torch.Tensor:
        panel, column = rows // packed.columns, rows % packed.columns
        values = packed.panels[panel, :, 2:, column].float()
        scale = packed.panels.flatten(2).view(torch.float16)[panel, :, column].float()
        return (values * scale[..., None]).flatten(-2)

    def row(self, f: Function, panel: str, k: str) -> str:
        group = f.let(f"sdiv i64 {k}, {self.group}")
        return f.at(panel, f.mul(group, str(2 * f.width * (2 + self.group))), "i8")

    def read(self, f: Function, panel: str, k: str) -> list[tuple[str, str]]:
        row = f.at(panel, f.mul(f.add(k, "2"), str(2 * f.width)), "i8")
        first, second = (self._half(f, panel, row, half) for half in range(2))
        return [(first, second)]

    def _half(self, f: Function, panel: str, row: str, half: int) -> str:
        raw = f.load(f"<{f.width} x i8>", f.at(row, str(half * f.width), "i8"))
        wide = f.let(f"sext <{f.width} x i8> {raw} to {f.integers}")
        value = f.let(f"sitofp {f.integers} {wide} to {f.vector}")
        return f.let(f"fmul {f.vector} {value}, {_halves(f, panel, half)}")


class Int4(Format):
    """4 bits; 32 weights of an output channel share a scale and a smallest value in float16, as in GGUF's Q4_1.

    A group of a panel holds the scales, the smallest values, and for every four input channels `width` int32, each
    with the eight weights that they have in channels `j` and `j + width`.
    """

    name = "int4"
    bits = 5
    step = 4
    group = 32
    wide_rows = 6

    def empty(self, panels: int, inputs: int, columns: int) -> torch.Tensor:
        return torch.zeros(panels, inputs // self.group, 5 * columns, dtype=torch.int32)

    def fill(self, weights: torch.Tensor, panels: torch.Tensor) -> None:
        count, columns, inputs = weights.shape
        groups = weights.float().view(count, columns, inputs // self.group, self.group)
        low, step = ranges(groups)
        values = ((groups - low) / step).round_().clamp_(0, 15).to(torch.int32)
        fours = values.view(count, 2, columns // 2, -1, 4)
        words = torch.zeros(count, columns // 2, inputs // 4, dtype=torch.int32)
        for k in range(4):
            for half in range(2):
                words |= fours[:, half, ..., k] << 4 * (2 * k + half)
        turned = torch.empty(count, inputs // 4, columns // 2, dtype=torch.int32)
        transposed(words, turned)
        panels[..., columns:] = turned.view(count, inputs // self.group, 4 * columns)
        constants = torch.stack([step, low]).squeeze(-1).permute(1, 3, 0, 2)  # [panels, groups, 2, columns]
        panels[..., :columns] = constants.half().contiguous().flatten(2).view(torch.int32)

    def unpack(self, packed: Packed, rows: torch.Tensor) -> torch.Tensor:
        column, width = rows % packed.columns, packed.columns // 2
        chosen = packed.panels[rows // packed.columns]  # [..., groups, 5 * columns]
        constants = chosen[..., : packed.columns].contiguous().view(torch.float16)
        constants = constants.view(*chosen.shape[:-1], 2, packed.columns)
        places = column[..., None, None, None].expand(*chosen.shape[:-1], 2, 1)
        step, low = constants.gather(-1, places).float().squeeze(-1).unbind(-1)
        words = chosen[..., packed.columns :].reshape(*chosen.shape[:-1], 8, width)
        words = words.gather(-1, (column % width)[..., None, None, None].expand(*words.shape[:-1], 1))
        shifts = torch.arange(4) * 8 + (column // width * 4)[..., None, None, None]
        values: torch.Tensor = words >> shifts & 15  # [..., groups, 8, 4]
        return (values.flatten(-2) * step[..., None] + low[..., None]).flatten(-2)

    def row(self, f: Function, panel: str, k: str) -> str:
        group = f.let(f"sdiv i64 {k}, {self.group}")
        return f.at(panel, f.mul(group, str(10 * f.width)), "i32")

    def read(self, f: Function, panel: str, k: str) -> list[tuple[str, str]]:
        constants = [_halves(f, panel, i) for i in range(4)]
        four = f.let(f"sdiv i64 {k}, 4")
        place = f.at(panel, f.add(f.mul(four, str(f.width)), str(2 * f.width)), "i32")
        raw = f.load(f.integers, place, 4)
        pairs = []
        for i in range(4):
            first, second = (self._weights(f, raw, 2 * i + half, constants, half) for half in range(2))
            pairs.append((first, second))
        return pairs

    def _weights(self, f: Function, raw: str, nibble: int, constants: list[str], half: int) -> str:
        shifted = f.let(f"lshr {f.integers} {raw}, {f.constant(4 * nibble)}") if nibble else raw
        masked = f.let(f"and {f.integers} {shifted}, {f.constant(15)}") if nibble < 7 else shifted
        value = f.let(f"sitofp {f.integers} {masked} to {f.vector}")
        return f.fma(value, constants[half], constants[2 + half])


def _halves(f: Function, group: str, index: int) -> str:
    """Vector `index` of the float16 at the head of a group."""
    raw = f.load(f"<{f.width} x half>", f.at(group, str(index * f.width), "half"), 2)
    return f.let(f"fpext <{f.width} x half> {raw} to {f.vector}")


def split(tensor: torch.Tensor, *sizes: int) -> torch.Tensor:
    """The last dimension cut into pieces of these sizes."""
    return tensor.reshape(*tensor.shape[:-1], -1, *sizes)


def scales(groups: torch.Tensor) -> torch.Tensor:
    """What the largest number of each group [..., weights] is 127 of, [..., 1], exact in float16."""
    scale = (groups.abs().amax(-1, keepdim=True) / 127).half().float()
    return torch.where(scale > 0, scale, torch.ones_like(scale))


def ranges(groups: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The smallest value and the step of each group [..., weights], [..., 1] each, exact in float16, that err least."""
    lowest, highest = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    middle, reach = (highest + lowest) / 2, (highest - lowest) / 2
    best: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None
    for part in _SHRUNK:
        step = (reach * (2 * part / 15)).half().float()
        step = torch.where(step > 0, step, torch.ones_like(step))
        low = (middle - reach * part).half().float()
        found = ((groups - low) / step).round_().clamp_(0, 15).mul_(step).add_(low).sub_(groups).square_()
        error = found.sum(-1, keepdim=True)
        if best is None:
            best = error, low, step
        else:
            better = error < best[0]
            best = tuple(torch.where(better, new, old) for new, old in zip((error, low, step), best, strict=True))  # type: ignore[assignment]
    assert best is not None  # noqa: S101 - for the type checker
    return best[1], best[2]
