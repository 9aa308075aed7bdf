"""Turns panels of weights so that an input channel's lie side by side: torch's own copies take ten times as long."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import torch

from polyroute.backends.local.worker.compute import jit
from polyroute.backends.local.worker.compute.emit import Function
from polyroute.backends.local.worker.compute.openmp import parallel_entry
from polyroute.backends.local.worker.compute.parallel import entry, shares

_LINE = 32  # elements
_KINDS = {1: "i8", 2: "i16", 4: "i32"}


def transposed(source: torch.Tensor, to: torch.Tensor, *, paired: bool = False) -> None:
    """Writes [panels, columns, inputs] as [panels, inputs, columns]; both contiguous and of one type.

    `paired` puts columns j and j + columns / 2 side by side."""
    if not (source.is_contiguous() and to.is_contiguous()):
        raise ValueError("a panel's weights must lie in order")
    panels, columns, inputs = source.shape
    function = _functions(columns, paired)[source.itemsize]
    function(source.data_ptr(), to.data_ptr(), panels, inputs, torch.get_num_threads())


@cache
def _functions(columns: int, paired: bool) -> dict[int, Any]:
    library = jit.compile("\n".join(_source(columns, size, paired) for size in _KINDS))
    prototype = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 3)
    functions = {size: prototype(library.address(f"transpose{size}")) for size in _KINDS}
    functions[0] = library  # type: ignore[assignment]  # lives as long
    return functions


def _source(columns: int, size: int, paired: bool) -> str:
    kind = _KINDS[size]
    arguments = ("ptr source", "ptr to", "i64 panels", "i64 inputs", "i64 threads")
    f = Function(f"define internal void @share{size}(ptr %arguments)", 1)
    with shares(f, arguments, "panels") as (a, panel):
        before = f.mul(f.mul(panel, a["inputs"]), str(columns))
        source, to = f.at(a["source"], before, kind), f.at(a["to"], before, kind)
        with f.loop(
            "0", a["inputs"], _LINE
        ) as line:  # whole cache lines, since the columns' lines collide in the cache
            stop = f.smaller(a["inputs"], f.add(line.index, str(_LINE)))
            with f.loop("0", str(columns), 1) as column:
                read = f.at(source, f.mul(column.index, a["inputs"]), kind)
                place = _paired(f, column.index, columns // 2) if paired else column.index
                write = f.at(to, place, kind)
                with f.loop(line.index, stop, 1) as k:
                    value = f.load(kind, f.at(read, k.index, kind), size)
                    f.store(kind, value, f.at(write, f.mul(k.index, str(columns)), kind), size)
    return f.text() + entry(f"transpose{size}", f"share{size}", arguments, parallel_entry())


def _paired(f: Function, column: str, half: int) -> str:
    second = f.let(f"udiv i64 {column}, {half}")
    return f.add(f.mul(f.let(f"urem i64 {column}, {half}"), "2"), second)
