"""Stands for CUDA graphs on the CPU: records a function's operations with the tensors they met, and repeats just these.

As with a graph, Python is not asked again when a recording is played: a number that it read while recording stays as it
was, and so does every address. What makes a capture fail, waiting for a value or for a shape, fails here too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_WAITING = {
    torch.ops.aten._local_scalar_dense,
    torch.ops.aten.equal,
    torch.ops.aten.is_nonzero,
    torch.ops.aten.item,
    torch.ops.aten.masked_select,
    torch.ops.aten.nonzero,
    torch.ops.aten._unique2,
}
"""Operations that need the device's answer before Python can go on."""


class Waits(RuntimeError):
    """The function waits for the device."""


@contextmanager
def capturing() -> Iterator[None]:
    """Has transformers think that a stream is being captured: it then leaves out checks that wait for the device."""
    with mock.patch("transformers.utils.import_utils.is_cuda_stream_capturing", return_value=True):
        yield


class _Operations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self._made: list[tuple[Any, Any, dict[str, Any], list[Any]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.overloadpacket in _WAITING or _reads_mask(func, args):
            raise Waits(f"{func} is not permitted while recording\nand this line is for those who debug")
        made = func(*args, **kwargs)
        self._made.append((func, args, kwargs, tree_leaves(made)))
        return made

    def play(self) -> None:
        """Does the same with the same tensors; results go where they went."""
        for func, args, kwargs, before in self._made:
            for old, new in zip(before, tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def _reads_mask(func: Any, args: Any) -> bool:
    """Whether it indexes by a mask, so that the shape hangs on its values."""
    indexing = func.overloadpacket in (torch.ops.aten.index, torch.ops.aten.index_put, torch.ops.aten.index_put_)
    return indexing and any(getattr(index, "dtype", None) is torch.bool for index in args[1])


@dataclass(slots=True)
class Recorder:
    """See `graphs.Record`. `recorded` and `played` count."""

    recorded: int = 0
    played: int = 0
    fail: Callable[[], None] = field(default=lambda: None)

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Runs `work` to warm up, then records it; what is recorded is played by what this returns."""
        work()
        self.fail()
        operations = _Operations()
        with capturing(), operations:
            work()
        self.recorded += 1

        def play() -> None:
            self.played += 1
            operations.play()

        return play
