"""Rounds rows of float32 to what a product takes: pairs of bfloat16, or groups of int8 with their scales."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Final

import torch

from polyroute.backends.local.worker.compute import jit
from polyroute.backends.local.worker.compute.arithmetic import FOURS, GROUP, Arithmetic
from polyroute.backends.local.worker.compute.emit import Function
from polyroute.backends.local.worker.compute.openmp import parallel_entry
from polyroute.backends.local.worker.compute.parallel import entry, shares
from polyroute.backends.local.worker.compute.tape import Tape

_ARGUMENTS: Final = ("ptr x", "ptr out", "i64 columns", "i64 places", "i64 rows", "i64 threads")
_ALONE: Final = 1 << 16  # numbers: fewer are not worth waking other threads for


def _pairs(f: Function, x: str, out: str, columns: str, places: str) -> None:
    """To nearest even; with a zero at the end of rows of odd length."""
    floats, halves = f"<{2 * f.width} x float>", f"<{2 * f.width} x bfloat>"
    whole = f.let(f"and i64 {columns}, {-2 * f.width}")
    with f.loop("0", whole, 2 * f.width) as k:
        value = f.load(floats, f.at(x, k.index, "float"), 4)
        f.store(halves, f.let(f"fptrunc {floats} {value} to {halves}"), f.at(out, k.index, "bfloat"), 2)
    with f.loop(whole, columns, 1) as k:
        value = f.load("float", f.at(x, k.index, "float"), 4)
        f.store("bfloat", f.let(f"fptrunc float {value} to bfloat"), f.at(out, k.index, "bfloat"), 2)
    with f.loop(columns, f.mul(places, "2"), 1) as k:
        f.store("bfloat", "0.0", f.at(out, k.index, "bfloat"), 2)


def _fours(f: Function, x: str, out: str, columns: str, places: str) -> None:
    """All of a row's int8, then a float32 scale for each group, then an int32 sum for each group.

    A number that is none makes its group's scale none.
    """
    kind, floats, integers = f"<{GROUP} x float>", "llvm.vector.reduce.fmaximum", f"<{GROUP} x i32>"
    heads = f.at(out, f.let(f"sdiv i64 {columns}, {FOURS.inputs}"), "i32")
    groups = f.let(f"sdiv i64 {columns}, {GROUP}")
    totals = f.at(heads, groups, "i32")
    with f.loop("0", groups, 1) as g:
        start = f.mul(g.index, str(GROUP))
        value = f.load(kind, f.at(x, start, "float"), 4)
        size = f.let(f"call {kind} @llvm.fabs.v{GROUP}f32({kind} {value})")
        most = f.let(f"call float @{floats}.v{GROUP}f32({kind} {size})")
        f.store("float", f.let(f"fdiv float {most}, 127.0"), f.at(heads, g.index, "float"))
        inverse = f.let(f"fdiv float 127.0, {most}")
        inverse = f.let(f"select i1 {f.let(f'fcmp oeq float {most}, 0.0')}, float 0.0, float {inverse}")
        one = f.let(f"insertelement {kind} poison, float {inverse}, i64 0")
        all_ = f.let(f"shufflevector {kind} {one}, {kind} poison, {integers} zeroinitializer")
        rounded = f.let(f"call {kind} @llvm.rint.v{GROUP}f32({kind} {f.let(f'fmul {kind} {value}, {all_}')})")
        number = f.let(f"call {integers} @llvm.fptosi.sat.v{GROUP}i32.v{GROUP}f32({kind} {rounded})")
        small = f.let(f"trunc {integers} {number} to <{GROUP} x i8>")
        f.store(f"<{GROUP} x i8>", small, f.at(out, start, "i8"), 1)
        total = f.let(f"call i32 @llvm.vector.reduce.add.v{GROUP}i32({integers} {number})")
        f.store("i32", total, f.at(totals, g.index, "i32"))


_DECLARATIONS: Final = f"""
declare <{GROUP} x float> @llvm.fabs.v{GROUP}f32(<{GROUP} x float>)
declare <{GROUP} x float> @llvm.rint.v{GROUP}f32(<{GROUP} x float>)
declare <{GROUP} x i32> @llvm.fptosi.sat.v{GROUP}i32.v{GROUP}f32(<{GROUP} x float>)
declare float @llvm.vector.reduce.fmaximum.v{GROUP}f32(<{GROUP} x float>)
declare i32 @llvm.vector.reduce.add.v{GROUP}i32(<{GROUP} x i32>)
"""


def source(body: Callable[[Function, str, str, str, str], None], width: int, parallel: int | None) -> str:
    """A module that exports `round`, and `share`, what each of its threads runs: x [rows, columns] of float32 into out
    [rows, places] of int32."""
    f = Function("define void @share(ptr %arguments)", width)
    with shares(f, _ARGUMENTS, "rows") as (a, row):
        x = f.at(a["x"], f.mul(row, a["columns"]), "float")
        body(f, x, f.at(a["out"], f.mul(row, a["places"]), "i32"), a["columns"], a["places"])
    return _DECLARATIONS + f.text() + entry("round", "share", _ARGUMENTS, parallel)


class Rounding:
    """The compiled function for one kind of places."""

    def __init__(self, arithmetic: Arithmetic) -> None:
        self._integers = arithmetic is FOURS
        self._inputs = arithmetic.inputs
        body = _fours if self._integers else _pairs
        self._library = jit.compile(source(body, jit.processor().width, parallel_entry()))
        prototype = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 4)
        self._function = prototype(self._library.address("round"))
        self._share = self._library.address("share")

    def places(self, columns: int) -> int:
        """How many int32 a row of x becomes."""
        return -(-columns // self._inputs) + (2 * (columns // GROUP) if self._integers else 0)

    def run(self, x: torch.Tensor, out: torch.Tensor, tape: Tape | None = None) -> torch.Tensor:
        """x [rows, columns], contiguous float32, into `out` [rows, places] of int32, which is returned.

        With a `tape`, the call is recorded there instead of run.
        """
        rows, columns = x.shape
        threads = torch.get_num_threads() if rows * columns >= _ALONE else 1
        arguments = x.data_ptr(), out.data_ptr(), columns, out.shape[1], rows, threads
        if tape is None:
            self._function(*arguments)
        else:
            tape.add(self._share, arguments, threads)
        return out

    def rounded(self, x: torch.Tensor) -> torch.Tensor:
        """x [rows, columns] as a product sees it, in float32."""
        rows, columns = x.shape
        out = self.run(x, torch.empty(rows, self.places(columns), dtype=torch.int32))
        if not self._integers:
            return out.view(torch.bfloat16)[:, :columns].float()
        words, groups = columns // self._inputs, columns // GROUP
        values = out[:, :words].contiguous().view(torch.int8).float().view(rows, -1, GROUP)
        scales = out[:, words : words + groups].contiguous().view(torch.float32)
        return (values * scales[..., None]).flatten(1)
