"""The kernels for rows compute what transformers' modules do."""

from __future__ import annotations

import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaRMSNorm, apply_rotary_pos_emb

from polyroute.backends.local.worker.gpu.rows import Rows
from tests.kernels import DEVICE, needs_kernels

pytestmark = needs_kernels


def close(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    return found.dtype is wanted.dtype and torch.allclose(found, wanted, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("columns", [48, 64, 1000])
def test_a_norm_is_that_of_llama(columns: int) -> None:
    module = LlamaRMSNorm(columns, eps=1e-5).to(DEVICE)
    module.weight.data.normal_()
    x = torch.randn(5, columns, device=DEVICE)
    assert close(Rows().norm(x, module.weight, 1e-5), module(x))


@pytest.mark.parametrize(("heads", "width"), [(3, 16), (5, 24)])
def test_heads_are_turned_as_llama_turns_them_and_the_rest_is_left(heads: int, width: int) -> None:
    x = torch.randn(4, (heads + 2) * width, device=DEVICE)
    angles = torch.randn(4, width // 2, device=DEVICE).repeat(1, 2)
    cos, sin = angles.cos(), angles.sin()
    by_head = x.view(4, heads + 2, width).transpose(0, 1)[None]
    turned, _ = apply_rotary_pos_emb(by_head[:, :heads], by_head[:, :heads], cos[None], sin[None])
    wanted = torch.cat([turned, by_head[:, heads:]], 1)[0].transpose(0, 1).reshape(x.shape).clone()
    Rows().rotate(x, heads, cos, sin)
    assert close(x, wanted)


@pytest.mark.parametrize("columns", [96, 1030])
def test_gates_are_silu(columns: int) -> None:
    x = torch.randn(3, 2 * columns, device=DEVICE)
    gates, ups = x.split(columns, 1)
    assert close(Rows().gate(x), torch.nn.functional.silu(gates) * ups)
