"""The small things that a layer does to each row of activations, a kernel each: norms, rotary positions, gates."""

from __future__ import annotations

import torch

from polyroute.backends.local.worker.gpu.launch import block, kernels

_GATED = 1024  # columns that a program gates


class Rows:
    """The kernels, over contiguous tensors of one kind; raises `ImportError` without Triton."""

    def __init__(self) -> None:
        self._kernels = kernels()

    def norm(self, x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        """x [rows, columns] over the root of the mean of its squares, times `weight` [columns]."""
        rows, columns = x.shape
        out = torch.empty_like(x)
        warps = 4 if columns <= 2048 else 8
        self._kernels.norm[(rows,)](x, weight, out, epsilon, COLUMNS=columns, BLOCK=block(columns), num_warps=warps)
        return out

    def rotate(self, x: torch.Tensor, heads: int, cos: torch.Tensor, sin: torch.Tensor) -> None:
        """Turns the first `heads` heads of each row of x, in place, by the angles in `cos` and `sin` [rows, width]."""
        rows, width = cos.shape
        half = width // 2
        blocks = {"HEAD_BLOCK": block(heads), "HALF_BLOCK": block(half)}
        self._kernels.rotate[(rows,)](x, cos, sin, x.stride(0), HEADS=heads, HALF=half, **blocks)

    def gate(self, x: torch.Tensor) -> torch.Tensor:
        """silu of the first half of each row of x [rows, 2 * columns], times the second half: [rows, columns]."""
        rows, columns = x.shape[0], x.shape[1] // 2
        out = x.new_empty((rows, columns))
        self._kernels.gate[(rows, -(-columns // _GATED))](x, out, COLUMNS=columns, BLOCK=_GATED)
        return out
