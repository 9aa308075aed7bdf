"""Torch's own pool of threads, so that kernels of ours and of torch take turns on the same cores."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from pathlib import Path

import torch


@cache
def parallel_entry() -> int | None:
    """The address of `GOMP_parallel` (libgomp ABI) in the OpenMP library that torch runs on; None where it runs on
    another kind: kernels then run in the calling thread alone."""
    if sys.platform != "linux":
        return None
    mapped = {line.split(maxsplit=5)[-1].strip() for line in Path("/proc/self/maps").read_text().splitlines()}
    ours = str(Path(torch.__file__).parent)
    found = sorted((name for name in mapped if "libgomp" in name), key=lambda name: not name.startswith(ours))
    if not found:
        return None
    function = getattr(ctypes.CDLL(found[0]), "GOMP_parallel", None)
    return ctypes.cast(function, ctypes.c_void_p).value if function is not None else None
