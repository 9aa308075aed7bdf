"""The compiled functions on rows are those of torch."""

from __future__ import annotations

import pytest
import torch

from polyroute.backends.local.worker.compute.rows import Rows, compiled_rows
from polyroute.backends.local.worker.compute.tape import Tape


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
    normed, total = torch.empty_like(x), torch.empty_like(x)
    rows().norm(x, weight, 1e-5, normed)
    torch.testing.assert_close(normed, rms(x, weight, 1e-5))
    rows().add_norm(x, residual, total, weight, 1e-3, normed)
    assert torch.equal(total, x + residual)
    torch.testing.assert_close(normed, rms(x + residual, weight, 1e-3))


@pytest.mark.parametrize(("count", "columns"), [(1, 64), (5, 1536), (130, 512)])
def test_gate_is_silu_times_the_other_half_at_any_size(count: int, columns: int) -> None:
    x = torch.randn(count, 2 * columns) * 20
    x[0, :6] = torch.tensor([0.0, -0.0, 90.0, -90.0, 1e4, -1e4])
    wanted = torch.nn.functional.silu(x[:, :columns]) * x[:, columns:]
    found = torch.empty(count, columns)
    rows().gate(x, found)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("count", "width"), [(1, 32), (3, 64), (70, 128)])
def test_rotate_turns_the_first_heads_and_leaves_the_rest(count: int, width: int) -> None:
    x, cos, sin = torch.randn(count, 5 * width), torch.randn(count, width), torch.randn(count, width)
    heads = x.view(count, 5, width)[:, :3]
    turned = torch.cat([-heads[..., width // 2 :], heads[..., : width // 2]], -1)
    wanted = heads * cos[:, None] + turned * sin[:, None]
    found = x.clone()
    rows().rotate(found, 3, cos, sin)
    torch.testing.assert_close(found.view(count, 5, width)[:, :3], wanted)
    assert torch.equal(found[:, 3 * width :], x[:, 3 * width :])


def test_a_tape_plays_what_was_recorded_on_what_the_tensors_then_hold() -> None:
    x, weight, tape = torch.randn(3, 64), torch.randn(64), Tape()
    normed, gated = torch.empty(3, 64), torch.empty(3, 32)
    rows().norm(x, weight, 1e-5, normed, tape)
    rows().gate(normed, gated, tape)
    for _ in range(3):
        x.copy_(torch.randn(3, 64))
        tape.play()
        wanted = rms(x, weight, 1e-5)
        torch.testing.assert_close(normed, wanted)
        torch.testing.assert_close(gated, torch.nn.functional.silu(wanted[:, :32]) * wanted[:, 32:])
