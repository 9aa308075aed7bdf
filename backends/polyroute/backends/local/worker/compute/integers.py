"""Weights of 8 and 4 bits for processors that multiply bytes, and the part of a product that is theirs.

x is rounded to int8 too, each group of 32 channels of a row by its own scale ("dynamic", as llama.cpp does for Q8_0),
so a group's products are exact integers, and meet their scales once a group.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import torch

from polyroute.backends.local.worker.compute.arithmetic import FOURS, GROUP
from polyroute.backends.local.worker.compute.emit import Function
from polyroute.backends.local.worker.compute.formats import NEVER, Format, Packed
from polyroute.backends.local.worker.compute.quantized import ranges, scales, split
from polyroute.backends.local.worker.compute.transpose import transposed

_PLACES: Final = GROUP // FOURS.inputs


class Integers(Format):
    """Weights in groups of `GROUP` input channels: `head` rows of two vectors of float16, then `body` of int32."""

    arithmetic = FOURS
    group = GROUP // FOURS.inputs
    wide_rows = NEVER
    head: int
    body: int

    def group_bytes(self, width: int) -> int:
        """Bytes of a group of a panel."""
        return 2 * width * (2 * self.head + 4 * self.body)

    def row(self, f: Function, panel: str, k: str) -> str:
        group = f.let(f"sdiv i64 {k}, {self.group}")
        return f.at(panel, f.mul(group, str(self.group_bytes(f.width))), "i8")

    def places(self, f: Function, group: str) -> Iterator[list[str]]:
        """Both vectors of weights of each place of a group in turn."""
        raise NotImplementedError

    def start(self, f: Function, total: str) -> str:
        """What a group's sums begin with, given the sum of the group's x."""
        raise NotImplementedError

    def scaled(self, f: Function, group: str, half: int, found: str, total: str) -> str:
        """A group's sums in float32, of the weights' own size but not yet of x's, given those of int32."""
        raise NotImplementedError

    def read(self, f: Function, panel: str, k: str) -> list[tuple[str, str]]:
        raise NotImplementedError("these weights are read by groups")

    def empty(self, panels: int, inputs: int, columns: int) -> torch.Tensor:
        return torch.zeros(panels, inputs // GROUP, self.group_bytes(columns // 2), dtype=torch.uint8)

    def _halves(self, f: Function, group: str, half: int, row: int = 0) -> str:
        """A vector of the float16 in a row of the head."""
        raw = f.load(f"<{f.width} x half>", f.at(group, str((2 * row + half) * f.width), "half"), 2)
        return f.let(f"fpext <{f.width} x half> {raw} to {f.vector}")

    def _word(self, f: Function, group: str, row: int, half: int) -> str:
        """A vector of a row of the body."""
        place = 4 * self.head * f.width + 4 * f.width * (2 * row + half)
        return f.load(f.integers, f.at(group, str(place), "i8"), 4)


class Int8Fours(Integers):
    """8 bits, symmetric, with a scale a group, as in GGUF's Q8_0. 128 is added to each, which makes it unsigned."""

    name = "int8"
    bits = 8.5
    head, body = 1, _PLACES

    def fill(self, weights: torch.Tensor, panels: torch.Tensor) -> None:
        groups = split(weights.float(), GROUP)
        scale = scales(groups)
        values = (groups / scale).round_().clamp_(-127, 127).add_(128).to(torch.uint8)
        _fill(panels, [scale], _words(values))

    def unpack(self, packed: Packed, rows: torch.Tensor) -> torch.Tensor:
        (scale,), words = _read(packed, rows, self.head)
        values = words.contiguous().view(torch.uint8).float() - 128
        return (values * scale[..., None]).flatten(-2)

    def places(self, f: Function, group: str) -> Iterator[list[str]]:
        for place in range(_PLACES):
            yield [self._word(f, group, place, half) for half in range(2)]

    def start(self, f: Function, total: str) -> str:
        return f.splat(f.let(f"mul i32 {total}, -128"), "i32")

    def scaled(self, f: Function, group: str, half: int, found: str, total: str) -> str:
        return f.let(f"fmul {f.vector} {found}, {self._halves(f, group, half)}")


class Int4Fours(Integers):
    """4 bits, with a step and a smallest value a group, as in GGUF's Q4_1. Two places share a word: the first one's
    weights are the lower halves of its bytes."""

    name = "int4"
    bits = 5
    head, body = 2, _PLACES // 2

    def fill(self, weights: torch.Tensor, panels: torch.Tensor) -> None:
        groups = split(weights.float(), GROUP)
        low, step = ranges(groups)
        values = ((groups - low) / step).round_().clamp_(0, 15).to(torch.uint8)
        pairs = split(values, 2, FOURS.inputs)
        _fill(panels, [step, low], _words((pairs[..., 0, :] | pairs[..., 1, :] << 4).flatten(3)))

    def unpack(self, packed: Packed, rows: torch.Tensor) -> torch.Tensor:
        (step, low), words = _read(packed, rows, self.head)
        both = split(words.contiguous().view(torch.uint8), FOURS.inputs)
        values = torch.stack([both & 15, both >> 4], -2).flatten(-3).float()
        return (values * step[..., None] + low[..., None]).flatten(-2)

    def places(self, f: Function, group: str) -> Iterator[list[str]]:
        lower = f.constant(0x0F0F0F0F)
        for row in range(self.body):
            words = [self._word(f, group, row, half) for half in range(2)]
            yield [f.let(f"and {f.integers} {word}, {lower}") for word in words]
            shifted = [f.let(f"lshr {f.integers} {word}, {f.constant(4)}") for word in words]
            yield [f.let(f"and {f.integers} {word}, {lower}") for word in shifted]

    def start(self, f: Function, total: str) -> str:
        return "zeroinitializer"

    def scaled(self, f: Function, group: str, half: int, found: str, total: str) -> str:
        least = f.let(f"fmul {f.vector} {self._halves(f, group, half, 1)}, {f.splat(total)}")
        return f.fma(found, self._halves(f, group, half), least)


def _words(values: torch.Tensor) -> torch.Tensor:
    """uint8 [panels, columns, groups, bytes] as int32 [panels, groups * words, columns]."""
    panels, columns = values.shape[:2]
    words = values.contiguous().view(torch.int32).view(panels, columns, -1)
    turned = torch.empty(panels, words.shape[2], columns, dtype=torch.int32)
    transposed(words, turned)
    return turned


def _fill(panels: torch.Tensor, head: list[torch.Tensor], words: torch.Tensor) -> None:
    """`head` are float [panels, columns, groups, 1]; `words` as `_words` gives them."""
    groups = panels.shape[1]
    halves = torch.stack([row.squeeze(-1).transpose(1, 2) for row in head], 2).half().contiguous()
    start = 2 * halves.shape[2] * halves.shape[3]
    panels[:, :, :start] = halves.view(torch.uint8).flatten(2)
    panels[:, :, start:] = words.view(torch.uint8).view(panels.shape[0], groups, -1)


def _read(packed: Packed, rows: torch.Tensor, head: int) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Of output channels [...]: the float32 [..., groups] of each row of the head, and int32 [..., groups, words]."""
    panel, column, columns = rows // packed.columns, rows % packed.columns, packed.columns
    # Views alone: of a large vocabulary's weights, a step reads a few rows.
    groups = packed.panels.shape[:2]
    halves = packed.panels.view(torch.float16)[..., : head * columns].view(*groups, head, columns)
    words = packed.panels.view(torch.int32)[..., head * columns // 2 :].view(*groups, -1, columns)
    return [halves[panel, :, row, column].float() for row in range(head)], words[panel, :, :, column]
