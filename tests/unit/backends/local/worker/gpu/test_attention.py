"""The kernels attend as torch's operations do, which `test_attention` of the forward pass holds to the definition."""

from __future__ import annotations

import pytest
import torch

from polyroute.backends.local.worker.forward.attention import Style, attend
from polyroute.backends.local.worker.forward.batch import Batch, Decoding, Fixed, Prefilling
from polyroute.backends.local.worker.forward.slabs import LayerShape, Slab
from polyroute.backends.local.worker.gpu.attention import SlotAttention, slot_attention
from tests.kernels import DEVICE, needs_kernels

pytestmark = needs_kernels

KV_HEADS = 2
CAPACITY = 96
WHOLE = 512
STYLES = {
    "plain": (None, None, False),
    "window": (7, None, False),
    "window of one": (1, None, False),
    "soft cap": (None, 1.5, False),
    "sinks": (None, None, True),
    "all": (24, 5.0, True),
}


def styled(name: str, heads: int, width: int) -> Style:
    window, softcap, sinks = STYLES[name]
    return Style(width**-0.5, window, softcap, torch.linspace(-1, 2, heads, device=DEVICE) if sinks else None)


def slab(width: int, value_width: int, dtype: torch.dtype) -> Slab:
    made = Slab(CAPACITY, [LayerShape(KV_HEADS, width, value_width)], dtype, DEVICE)
    made.resize(5)
    chance = torch.Generator().manual_seed(1)
    for numbers in (*made.keys, *made.values):
        numbers.copy_(torch.randn(numbers.shape, generator=chance))
    return made


def row(slab: Slab, kernels: SlotAttention | None) -> Batch:
    """Three that decode, one slot apart, then a chunk after others of its sequence, and a whole short prompt."""
    chunks = [Prefilling(slab, 2, 11, 40, 3), Prefilling(slab, 4, 0, 10, 43)]
    return Batch(decoding=[Decoding(slab, [0, 1, 3], [5, 70, 33], 0)], prefilling=chunks, kernels=kernels)


def tensors(groups: int, width: int, value_width: int, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    chance = torch.Generator().manual_seed(2)
    shapes = (KV_HEADS * groups, 53, width), (KV_HEADS, 53, width), (KV_HEADS, 53, value_width)
    return tuple(torch.randn(shape, generator=chance).to(DEVICE, dtype) for shape in shapes)


@pytest.mark.parametrize("share", [16, WHOLE], ids=["split", "whole"])
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(
    ("groups", "width", "value_width"), [(1, 16, 16), (3, 24, 8), (4, 64, 64), (5, 80, 80)], ids=str
)
def test_they_find_what_torch_finds(groups: int, width: int, value_width: int, style: str, share: int) -> None:
    asked = styled(style, KV_HEADS * groups, width)
    given = tensors(groups, width, value_width, torch.float32)
    ours, torchs = (slab(width, value_width, torch.float32) for _ in range(2))
    found = attend(row(ours, SlotAttention(64, least_share=share)), 0, *given, asked)
    wanted = attend(row(torchs, None), 0, *given, asked)
    assert torch.allclose(found, wanted, atol=2e-5, rtol=1e-4)
    assert torch.equal(ours.keys[0], torchs.keys[0])
    assert torch.equal(ours.values[0], torchs.values[0])


def test_numbers_of_16_bits_differ_by_rounding_alone() -> None:
    dtype = torch.bfloat16 if DEVICE.type == "cuda" else torch.float16  # the interpreter cannot multiply the former
    given, asked = tensors(4, 64, 64, dtype), styled("plain", 4 * KV_HEADS, 64)
    found = attend(row(slab(64, 64, dtype), SlotAttention(64, least_share=32)), 0, *given, asked).float()
    exact = attend(row(slab(64, 64, torch.float32), None), 0, *(of.float() for of in given), asked)
    assert (found - exact).norm() < (1e-2 if dtype is torch.bfloat16 else 1e-3) * exact.norm()


def test_slots_are_told_by_tensors_so_that_a_step_can_be_recorded() -> None:
    width, own = 16, slab(16, 16, torch.float32)
    query, key, value = (of[:, :3] for of in tensors(2, width, 16, torch.float32))
    past = torch.tensor([5, 70, 33], device=DEVICE)
    fixed = Fixed(own, 0, torch.arange(3, device=DEVICE), past)
    style = styled("window", 2 * KV_HEADS, width)
    found = attend(Batch(fixed=[fixed], kernels=SlotAttention(8)), 0, query, key, value, style)
    decoding = Decoding(slab(16, 16, torch.float32), [0, 1, 2], past.tolist(), 0)
    wanted = attend(Batch(decoding=[decoding]), 0, query, key, value, style)
    assert torch.allclose(found, wanted, atol=2e-5, rtol=1e-4)


def test_what_former_owners_left_is_not_read() -> None:
    dirty, clean = slab(16, 16, torch.float32), slab(16, 16, torch.float32)
    for numbers in (dirty.keys[0][0, :, :, 6:], dirty.values[0][0, :, 6:], dirty.keys[0][4], dirty.values[0][4]):
        numbers.fill_(float("nan"))
    given, asked = tensors(2, 16, 16, torch.float32), styled("plain", 2 * KV_HEADS, 16)
    found, wanted = (attend(row(of, SlotAttention(64, least_share=32)), 0, *given, asked) for of in (dirty, clean))
    assert torch.equal(found, wanted)


def test_only_cuda_has_them() -> None:
    assert slot_attention(torch.device("cpu")) is None
    assert slot_attention(torch.device("mps")) is None
