"""What launching Triton's kernels takes."""

from __future__ import annotations

from types import ModuleType
from typing import Any

_LEAST = 16  # numbers of a block: tensor cores take no less


def kernels() -> Any:
    """The kernels; raises `ImportError` where there is no Triton."""
    from polyroute.backends.local.worker.gpu import kernels as found

    module: ModuleType = found
    return module


def block(size: int) -> int:
    """The size of the block that holds `size` numbers: a power of two."""
    return max(_LEAST, 1 << (size - 1).bit_length())
