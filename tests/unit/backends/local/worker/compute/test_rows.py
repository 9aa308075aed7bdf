"""The compiled functions on rows are those of torch."""

from __future__ import annotations

import pytest
import torch

from polyroute.backends.local.worker.compute.rows import Rows, compiled_rows


def rows() -> Rows:
    made = compiled_rows()
    assert made is not None
    return made


def rms(x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + epsilon) * weight


@pytest.mark.parametrize(("count", "columns"), [(1, 64), (7, 2048), (130, 576)])
def test_norm_alone_and_after_adding_a_residual(count: int, columns: int) -> None:
    x, residual, weight = torch.randn(count, columns), torch.randn(count, columns), torch.randn(columns)
    x[0] = 0
    torch.testing.assert_close(rows().norm(x, weight, 1e-5), rms(x, weight, 1e-5))
    total, normed = rows().add_norm(x, residual, weight, 1e-3)
    assert torch.equal(total, x + residual)
    torch.testing.assert_close(normed, rms(x + residual, weight, 1e-3))


@pytest.mark.parametrize(("count", "columns"), [(1, 64), (5, 1536), (130, 512)])
def test_gate_is_silu_times_the_other_half_at_any_size(count: int, columns: int) -> None:
    x = torch.randn(count, 2 * columns) * 20
    x[0, :6] = torch.tensor([0.0, -0.0, 90.0, -90.0, 1e4, -1e4])
    wanted = torch.nn.functional.silu(x[:, :columns]) * x[:, columns:]
    torch.testing.assert_close(rows().gate(x), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("count", "width"), [(1, 16), (3, 64), (70, 128)])
def test_rotate_turns_the_first_heads_and_leaves_the_rest(count: int, width: int) -> None:
    x, cos, sin = torch.randn(count, 5 * width), torch.randn(count, width), torch.randn(count, width)
    heads = x.view(count, 5, width)[:, :3]
    turned = torch.cat([-heads[..., width // 2 :], heads[..., : width // 2]], -1)
    wanted = heads * cos[:, None] + turned * sin[:, None]
    found = x.clone()
    rows().rotate(found, 3, cos, sin)
    torch.testing.assert_close(found.view(count, 5, width)[:, :3], wanted)
    assert torch.equal(found[:, 3 * width :], x[:, 3 * width :])
