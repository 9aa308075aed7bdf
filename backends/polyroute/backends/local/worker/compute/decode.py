"""The compiled attention of decoding sequences over slots of keys and values; see `attend`."""

from __future__ import annotations

import ctypes
import struct
from functools import cache

import torch

from polyroute.backends.local.worker.compute import attend, jit
from polyroute.backends.local.worker.compute.arithmetic import multiplies_pairs
from polyroute.backends.local.worker.compute.openmp import parallel_entry
from polyroute.backends.local.worker.compute.tape import Tape

_ALL = 1 << 62
_ARGUMENTS = struct.Struct(f"{len(attend.INTEGERS)}q{len(attend.DOUBLES)}d")


_STORED = {torch.float32: "float", torch.bfloat16: "bfloat"}


class DecodeAttention:
    """For `groups` query heads a KV head, and keys and values of these widths, kept as `dtype`."""

    def __init__(self, groups: int, key_width: int, value_width: int, dtype: torch.dtype) -> None:
        processor = jit.processor()
        if dtype is torch.bfloat16 and not multiplies_pairs(processor):
            raise RuntimeError("this processor does not round to bfloat16")
        if value_width % processor.width:
            raise RuntimeError(f"values of {value_width} numbers fill no vectors of {processor.width}")
        self.unit = 2 * processor.width
        self._groups = groups
        self._library = jit.compile(
            attend.source(processor, groups, key_width, value_width, _STORED[dtype], parallel_entry())
        )
        self._function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(
            self._library.address("attend")
        )
        self._share = self._library.address("share")
        self._room = ctypes.create_string_buffer(_ARGUMENTS.size + 8)
        self._address = (ctypes.addressof(self._room) + 7) // 8 * 8
        self._offset = self._address - ctypes.addressof(self._room)

    def run(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        slots: torch.Tensor,
        past: torch.Tensor,
        out: torch.Tensor,
        *,
        scaling: float,
        window: int | None,
        softcap: float | None,
        sinks: torch.Tensor | None,
        tape: Tape | None = None,
    ) -> None:
        """Writes `key` and `value` into the slots, after the `past` tokens that each holds, and attends to all of them.

        `query` [heads, n, key width], `key` and `value` [KV heads, n, width] are float32; the slab's `keys` [slots, KV
        heads, key width, capacity] and `values` [slots, KV heads, capacity, value width] are of the kernel's dtype, and
        the capacity is a multiple of `unit`; `slots` and `past` are int64 [n]. `out` [n, heads, value width] is
        contiguous. With a `tape`, the call is recorded there instead of run; tensors must then be as contiguous as they
        say.
        """
        query, key, value = (t if t.stride(2) == 1 else t.contiguous() for t in (query, key, value))
        if sinks is not None:
            sinks = sinks.float().contiguous()
        _ARGUMENTS.pack_into(
            self._room,
            self._offset,
            *(query.data_ptr(), query.stride(0), query.stride(1)),
            *(key.data_ptr(), key.stride(0), key.stride(1)),
            *(value.data_ptr(), value.stride(0), value.stride(1)),
            *(keys.data_ptr(), values.data_ptr(), slots.data_ptr(), past.data_ptr()),
            *(0 if sinks is None else sinks.data_ptr(), out.data_ptr()),
            *(key.shape[0], keys.shape[3], window or _ALL),
            *(scaling, softcap or 0.0),
        )
        tasks, threads = query.shape[1] * key.shape[0], torch.get_num_threads()
        if tape is None:
            self._function(self._address, tasks, threads)
        else:
            kept = ctypes.create_string_buffer(self._room.raw[self._offset : self._offset + _ARGUMENTS.size])
            tape.keep(kept)
            tape.add(self._share, (ctypes.addressof(kept), tasks, threads), threads)


@cache
def decode_attention(groups: int, key_width: int, value_width: int, dtype: torch.dtype) -> DecodeAttention | None:
    """The kernel for these shapes and this dtype of keys and values; None where there is none for this processor."""
    try:
        return DecodeAttention(groups, key_width, value_width, dtype)
    except (RuntimeError, OSError, KeyError):  # no LLVM for this processor, no vectors that fit, another dtype
        return None
