"""oneDNN's products with weights that it has laid out for itself, through private operators of torch."""

from __future__ import annotations

import torch
from torch.nn.functional import linear


class Prepacked:
    """A linear layer whose weights oneDNN has laid out."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous())
        self._bias = None if bias is None else bias.detach().clone()
        self._function = torch.ops.mkldnn._linear_pointwise.default

    def run(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self._function(x, self._weight, self._bias, "none", [], "")
        return y


def usable(dtype: torch.dtype) -> bool:
    """Whether this processor computes fast in `dtype` that way, and rightly, for few rows and many."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    generator = torch.Generator().manual_seed(0)
    try:
        if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return False
        weight = torch.randn(96, 80, generator=generator).to(dtype)
        bias = torch.randn(96, generator=generator).to(dtype)
        layer = Prepacked(weight, bias)
        for rows in (1, 7, 40):
            x = torch.randn(1, rows, 80, generator=generator).to(dtype)
            wanted = linear(x.float(), weight.float(), bias.float())
            tolerance = 4 * torch.finfo(dtype).eps
            if not torch.allclose(
                layer.run(x).float(), wanted, rtol=tolerance, atol=tolerance * float(wanted.abs().max())
            ):
                return False
    except (RuntimeError, AttributeError, NotImplementedError):  # another torch, another processor
        return False
    return True
