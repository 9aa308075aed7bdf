"""The small things that a layer does to each row of activations, compiled: norms, rotary positions, gated activations.

Each would be several of torch's operations, whose overhead is what a small model's step otherwise consists of.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Final

import torch

from polyroute.backends.local.worker.compute import jit
from polyroute.backends.local.worker.compute.attend import exp_function, float_constant
from polyroute.backends.local.worker.compute.emit import Function
from polyroute.backends.local.worker.compute.openmp import parallel_entry
from polyroute.backends.local.worker.compute.parallel import entry, shares
from polyroute.backends.local.worker.compute.tape import Tape

_ALONE: Final = 1 << 15  # numbers: fewer are not worth waking other threads for


def source(width: int, parallel: int | None) -> str:
    """A module that exports `norm`, `gate` and `rotate`; see `Rows` for what they do and their arguments."""
    kind = f"<{width} x float>"
    declarations = "\n".join(
        [
            f"declare {kind} @llvm.fma.v{width}f32({kind}, {kind}, {kind})",
            f"declare {kind} @llvm.floor.v{width}f32({kind})",
            f"declare {kind} @llvm.maxnum.v{width}f32({kind}, {kind})",
            f"declare float @llvm.vector.reduce.fadd.v{width}f32(float, {kind})",
            "declare float @llvm.sqrt.f32(float)",
            "",
        ]
    )
    parts = [declarations, exp_function(width)]
    for name in _ARGUMENTS:
        parts += [_function(name, width), entry(name, f"{name}.share", _ARGUMENTS[name], parallel)]
    return "\n".join(parts)


_ARGUMENTS: Final = {
    "norm": (
        *("ptr x", "ptr residual", "ptr sum", "ptr weight", "ptr out", "i64 columns", "double epsilon"),
        *("i64 rows", "i64 threads"),
    ),
    "gate": ("ptr x", "ptr out", "i64 columns", "i64 rows", "i64 threads"),
    "rotate": (
        *("ptr x", "ptr cos", "ptr sin", "i64 stride", "i64 heads", "i64 half"),
        *("i64 rows", "i64 threads"),
    ),
}


def _function(name: str, width: int) -> str:
    """What each thread runs for its part of the rows."""
    f = Function(f"define void @{name}.share(ptr %arguments)", width)
    body = {"norm": _norm, "gate": _gate, "rotate": _rotate}[name]
    with shares(f, _ARGUMENTS[name], "rows") as (a, row):
        body(f, a, row)
    return f.text()


def _norm(f: Function, a: dict[str, str], row: str) -> None:
    """Root mean square normalisation (Zhang and Sennrich, 2019) of x, or of x plus the residual, which is kept."""
    kind, width, start = f.vector, f.width, f.mul(row, a["columns"])
    x, sums, out = (f.at(a[name], start, "float") for name in ("x", "sum", "out"))
    plain, added, ready = f.label("plain"), f.label("added"), f.label("ready")
    lone = f.let(f"icmp eq ptr {a['residual']}, null")
    f.do(f"br i1 {lone}, label %{plain}, label %{added}")
    f.block(added)
    residual = f.at(a["residual"], start, "float")
    with f.loop("0", a["columns"], width) as i:
        value = f.let(f"fadd {kind} {_load(f, x, i.index)}, {_load(f, residual, i.index)}")
        f.store(kind, value, f.at(sums, i.index, "float"))
    last = f.label("last")
    f.do(f"br label %{last}")
    f.block(last)
    f.do(f"br label %{ready}")
    f.block(plain)
    f.do(f"br label %{ready}")
    f.block(ready)
    source = f.let(f"phi ptr [ {x}, %{plain} ], [ {sums}, %{last} ]")
    with f.loop("0", a["columns"], width, [(kind, "zeroinitializer")]) as i:
        value = _load(f, source, i.index)
        i.next = [f.fma(value, value, i.carried[0])]
    total = f.let(f"call reassoc float @llvm.vector.reduce.fadd.v{width}f32(float 0.0, {kind} {i.carried[0]})")
    columns = f.let(f"sitofp i64 {a['columns']} to float")
    mean = f.let(f"fdiv float {total}, {columns}")
    epsilon = f.let(f"fptrunc double {a['epsilon']} to float")
    root = f.let(f"call float @llvm.sqrt.f32(float {f.let(f'fadd float {mean}, {epsilon}')})")
    scale = f.splat(f.let(f"fdiv float 1.0, {root}"))
    with f.loop("0", a["columns"], width) as i:
        value = f.let(f"fmul {kind} {_load(f, source, i.index)}, {scale}")
        value = f.let(f"fmul {kind} {value}, {_load(f, a['weight'], i.index)}")
        f.store(kind, value, f.at(out, i.index, "float"))


def _gate(f: Function, a: dict[str, str], row: str) -> None:
    """SwiGLU (Shazeer, 2020): silu of a row's first half times its second."""
    kind, width = f.vector, f.width
    gates = f.at(a["x"], f.mul(row, f.mul(a["columns"], "2")), "float")
    ups = f.at(gates, a["columns"], "float")
    out = f.at(a["out"], f.mul(row, a["columns"]), "float")
    one = f.splat(float_constant(1.0))
    with f.loop("0", a["columns"], width) as i:
        gate = _load(f, gates, i.index)
        bits = f.let(f"or {f.integers} {f.let(f'bitcast {kind} {gate} to {f.integers}')}, {f.constant(-(1 << 31))}")
        e = f.let(f"call {kind} @exp({kind} {f.let(f'bitcast {f.integers} {bits} to {kind}')})")  # of -|gate|
        below = f.let(f"fcmp olt {kind} {gate}, zeroinitializer")
        upper = f.let(f"select <{width} x i1> {below}, {kind} {e}, {kind} {one}")
        sigmoid = f.let(f"fdiv {kind} {upper}, {f.let(f'fadd {kind} {one}, {e}')}")
        value = f.let(f"fmul {kind} {f.let(f'fmul {kind} {gate}, {sigmoid}')}, {_load(f, ups, i.index)}")
        f.store(kind, value, f.at(out, i.index, "float"))


def _rotate(f: Function, a: dict[str, str], row: str) -> None:
    """Rotary positions (Su et al., RoFormer, 2021), in place, of each head of a row; halves are paired, as in Llama."""
    kind, width = f.vector, f.width
    numbers = f.at(a["x"], f.mul(row, a["stride"]), "float")
    angles = f.mul(row, f.mul(a["half"], "2"))
    cos, sin = f.at(a["cos"], angles, "float"), f.at(a["sin"], angles, "float")
    with f.loop("0", a["heads"], 1) as head:
        low = f.at(numbers, f.mul(head.index, f.mul(a["half"], "2")), "float")
        high = f.at(low, a["half"], "float")
        with f.loop("0", a["half"], width) as i:
            upper = f.add(i.index, a["half"])
            first, second = _load(f, low, i.index), _load(f, high, i.index)
            turned = f.let(f"fmul {kind} {second}, {_load(f, sin, i.index)}")
            one = f.fma(first, _load(f, cos, i.index), f.let(f"fneg {kind} {turned}"))
            other = f.let(f"fmul {kind} {first}, {_load(f, sin, upper)}")
            two = f.fma(second, _load(f, cos, upper), other)
            f.store(kind, one, f.at(low, i.index, "float"))
            f.store(kind, two, f.at(high, i.index, "float"))


def _load(f: Function, base: str, index: str) -> str:
    return f.load(f.vector, f.at(base, index, "float"), 4)


class _Call:
    """One exported function."""

    def __init__(self, library: jit.Library, name: str) -> None:
        kinds = {"ptr": ctypes.c_void_p, "i64": ctypes.c_int64, "double": ctypes.c_double}
        types = [kinds[argument.split()[0]] for argument in _ARGUMENTS[name]]
        self._function = ctypes.CFUNCTYPE(None, *types)(library.address(name))
        self._share = library.address(f"{name}.share")

    def __call__(self, *arguments: float, rows: int, numbers: int, tape: Tape | None = None) -> None:
        threads = torch.get_num_threads() if rows * numbers >= _ALONE else 1
        if tape is None:
            self._function(*arguments, rows, threads)
        else:
            tape.add(self._share, (*arguments, rows, threads), threads)


class Rows:
    """The compiled functions. All tensors are contiguous float32, and their last size a multiple of `width`.

    With a `tape`, a function is recorded there instead of run.
    """

    def __init__(self) -> None:
        self.width = jit.processor().width
        self._library = jit.compile(source(self.width, parallel_entry()))
        self._norm, self._gate, self._rotate = (_Call(self._library, name) for name in _ARGUMENTS)

    def norm(
        self, x: torch.Tensor, weight: torch.Tensor, epsilon: float, out: torch.Tensor, tape: Tape | None = None
    ) -> None:
        """x [rows, columns] over the root of the mean of its squares, times `weight` [columns], into `out`."""
        rows, columns = x.shape
        arguments = x.data_ptr(), 0, 0, weight.data_ptr(), out.data_ptr(), columns, epsilon
        self._norm(*arguments, rows=rows, numbers=columns, tape=tape)

    def add_norm(
        self,
        x: torch.Tensor,
        residual: torch.Tensor,
        total: torch.Tensor,
        weight: torch.Tensor,
        epsilon: float,
        out: torch.Tensor,
        tape: Tape | None = None,
    ) -> None:
        """x + residual into `total`, which may be one of them, and its norm into `out`."""
        rows, columns = x.shape
        pointers = x.data_ptr(), residual.data_ptr(), total.data_ptr(), weight.data_ptr(), out.data_ptr()
        self._norm(*pointers, columns, epsilon, rows=rows, numbers=columns, tape=tape)

    def gate(self, x: torch.Tensor, out: torch.Tensor, tape: Tape | None = None) -> None:
        """silu of the first half of each row of x [rows, 2 * columns], times the second half, into `out`."""
        rows, columns = out.shape
        self._gate(x.data_ptr(), out.data_ptr(), columns, rows=rows, numbers=columns, tape=tape)

    def rotate(
        self, x: torch.Tensor, heads: int, cos: torch.Tensor, sin: torch.Tensor, tape: Tape | None = None
    ) -> None:
        """Turns the first `heads` heads of each row of x, in place, by the angles in `cos` and `sin` [rows, width]."""
        rows, width = cos.shape
        arguments = x.data_ptr(), cos.data_ptr(), sin.data_ptr(), x.shape[1], heads, width // 2
        self._rotate(*arguments, rows=rows, numbers=heads * width, tape=tape)


@cache
def compiled_rows() -> Rows | None:
    """The functions for this processor; None where there are none."""
    try:
        return Rows()
    except (RuntimeError, OSError):  # no LLVM for this processor
        return None
