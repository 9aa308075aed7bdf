"""Panels are turned as torch turns them."""

from __future__ import annotations

import pytest
import torch

from polyroute.backends.local.worker.compute.transpose import transposed


@pytest.mark.parametrize("dtype", [torch.int8, torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("panels", "columns", "inputs"), [(1, 16, 1), (3, 8, 33), (5, 16, 100)])
def test_turns_panels(dtype: torch.dtype, panels: int, columns: int, inputs: int) -> None:
    source = torch.randint(-100, 100, (panels, columns, inputs), generator=torch.Generator().manual_seed(0)).to(dtype)
    to = torch.empty(panels, inputs, columns, dtype=dtype)
    transposed(source, to)
    assert torch.equal(to, source.transpose(1, 2))
    transposed(source, to, paired=True)
    pairs = source.view(panels, 2, columns // 2, inputs).permute(0, 3, 2, 1)
    assert torch.equal(to.view(pairs.shape), pairs)


def test_refuses_what_does_not_lie_in_order() -> None:
    with pytest.raises(ValueError, match="in order"):
        transposed(torch.zeros(2, 4, 8).transpose(1, 2), torch.zeros(2, 4, 8))
