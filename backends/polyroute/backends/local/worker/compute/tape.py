"""A row of compiled functions with their arguments, played by one call: what CUDA graphs are for GPUs.

Python's part of a step, and torch's, is paid once when the tape is recorded, and not for every layer of every step.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence
from functools import cache
from typing import Final

from polyroute.backends.local.worker.compute import jit
from polyroute.backends.local.worker.compute.emit import Function
from polyroute.backends.local.worker.compute.openmp import parallel_entry

_ENTRY: Final = ("function", "arguments", "counter", "threads")


class Tape:
    """Records functions as `parallel.shares` writes them, with their arguments, and plays them in order."""

    def __init__(self) -> None:
        self._entries: list[int] = []
        self._arguments: list[ctypes.Array[ctypes.c_int64]] = []
        self._kept: list[ctypes.Array[ctypes.c_char]] = []
        self._sealed: ctypes.Array[ctypes.c_int64] | None = None

    def __repr__(self) -> str:
        return f"<Tape of {len(self._arguments)} functions>"

    def add(self, function: int, arguments: Sequence[float], threads: int) -> None:
        """Adds the function at an address; integers and addresses are passed as int64, floats as double."""
        bits = [argument if isinstance(argument, int) else _bits(argument) for argument in arguments]
        room = (ctypes.c_int64 * (len(bits) + 1))(*bits, 0)
        place = ctypes.addressof(room)
        self._arguments.append(room)
        self._entries += [function, place, place + 8 * len(bits), threads]

    def keep(self, room: ctypes.Array[ctypes.c_char]) -> None:
        """Keeps memory alive that arguments point to."""
        self._kept.append(room)

    def play(self) -> None:
        """Runs all that was added; what the arguments point to must still be there."""
        if self._sealed is None:
            self._sealed = (ctypes.c_int64 * len(self._entries))(*self._entries)
        _player()(ctypes.addressof(self._sealed), len(self._arguments))


def _bits(number: float) -> int:
    found: int = struct.unpack("q", struct.pack("d", number))[0]
    return found


def _source(parallel: int | None) -> str:
    f = Function("define void @play(ptr %tape, i64 %count)", 1)
    with f.loop("0", "%count", 1) as i:
        first = f.mul(i.index, str(len(_ENTRY)))
        values = {}
        for place, name in enumerate(_ENTRY):
            kind = "i64" if name == "threads" else "ptr"
            values[name] = f.load(kind, f.at("%tape", f.add(first, str(place)), "i64"), 8)
        f.store("i64", "0", values["counter"], 8)
        many = f.let(f"icmp sgt i64 {values['threads']}, 1") if parallel is not None else "false"
        alone, together, done = f.label("alone"), f.label("together"), f.label("done")
        f.do(f"br i1 {many}, label %{together}, label %{alone}")
        f.block(together)
        entry = f.let(f"inttoptr i64 {parallel or 0} to ptr")
        threads = f.let(f"trunc i64 {values['threads']} to i32")
        f.do(f"call void {entry}(ptr {values['function']}, ptr {values['arguments']}, i32 {threads}, i32 0)")
        f.do(f"br label %{done}")
        f.block(alone)
        f.do(f"call void {values['function']}(ptr {values['arguments']})")
        f.do(f"br label %{done}")
        f.block(done)
    f.do("ret void")
    return f.text()


class _Player:
    def __init__(self) -> None:
        self._library = jit.compile(_source(parallel_entry()))
        self._function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(self._library.address("play"))

    def __call__(self, tape: int, count: int) -> None:
        self._function(tape, count)


@cache
def _player() -> _Player:
    return _Player()
