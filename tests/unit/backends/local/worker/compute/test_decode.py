"""The compiled attention of decoding sequences is the attention of its definition."""

from __future__ import annotations

import pytest
import torch

from polyroute.backends.local.worker.compute.arithmetic import multiplies_pairs
from polyroute.backends.local.worker.compute.decode import decode_attention
from polyroute.backends.local.worker.compute.jit import processor

SHAPES = [(3, 64, 64), (4, 64, 64), (1, 16, 16), (8, 128, 128), (1, 48, 16), (5, 80, 80), (1, 33, 32)]
"""Query heads a KV head, width of keys, width of values."""

DTYPES = [
    torch.float32,
    pytest.param(
        torch.bfloat16, marks=[] if multiplies_pairs(processor()) else pytest.mark.skip(reason="not on this processor")
    ),
]
"""What keys and values are kept in."""

STYLES = [
    {"capacity": 256, "window": None, "softcap": None, "sinks": False},
    {"capacity": 1024, "window": 300, "softcap": None, "sinks": False},
    {"capacity": 512, "window": 24, "softcap": 50.0, "sinks": False},
    {"capacity": 768, "window": None, "softcap": None, "sinks": True},
    {"capacity": 64, "window": 17, "softcap": 0.5, "sinks": True},
]


def exact(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    slot: int,
    length: int,
    *,
    scaling: float,
    window: int | None,
    softcap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """One token's attention by its definition, float64 [heads, value width]."""
    heads, kv_heads = query.shape[0], keys.shape[1]
    first = max(0, length - window) if window else 0
    rows = []
    for head in range(heads):
        kv_head = head // (heads // kv_heads)
        scores = query[head].double() @ keys[slot, kv_head, :, first:length].double() * scaling
        if softcap:
            scores = torch.tanh(scores / softcap) * softcap
        if sinks is not None:
            scores = torch.cat([scores, sinks[head : head + 1].double()])
        weights = scores.softmax(-1)[: length - first]
        rows.append(weights @ values[slot, kv_head, first:length].double())
    return torch.stack(rows)


@pytest.mark.parametrize("style", STYLES, ids=str)
@pytest.mark.parametrize(("groups", "key_width", "value_width"), SHAPES)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES)
def test_it_takes_in_the_new_tokens_and_attends_to_all_that_is_seen(
    groups: int,
    key_width: int,
    value_width: int,
    style: dict[str, float | bool | None],
    threads: int,
    dtype: torch.dtype,
) -> None:
    chance = torch.Generator().manual_seed(7)
    capacity, n, kv_heads = int(style["capacity"] or 0), 4, 3
    heads, slots_there = groups * kv_heads, n + 2

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=chance)

    keys, values = (
        random(slots_there, kv_heads, key_width, capacity).to(dtype),
        random(slots_there, kv_heads, capacity, value_width).to(dtype),
    )
    query = random(n, heads, key_width).transpose(0, 1)  # not contiguous, as models pass them
    key, value = random(n, kv_heads, key_width).transpose(0, 1), random(kv_heads, n, value_width)
    slots, past = torch.tensor([4, 0, 5, 2]), torch.tensor([capacity - 1, 0, 31, capacity // 2 + 3])
    sinks = random(heads) if style["sinks"] else None
    softcap = float(style["softcap"]) if style["softcap"] else None
    window = int(style["window"]) if style["window"] else None
    kernel = decode_attention(groups, key_width, value_width, dtype)
    assert kernel is not None
    before_keys, before_values = keys.clone(), values.clone()
    out = torch.full((n, heads, value_width), float("nan"))
    given = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        kernel.run(
            query, key, value, keys, values, slots, past, out,
            scaling=0.3, window=window, softcap=softcap, sinks=sinks,
        )  # fmt: skip
    finally:
        torch.set_num_threads(given)
    for i, (slot, position) in enumerate(zip(slots.tolist(), past.tolist(), strict=True)):
        before_keys[slot, :, :, position], before_values[slot, :, position] = key[:, i], value[:, i]
        wanted = exact(
            query[:, i], before_keys, before_values, slot, position + 1,
            scaling=0.3, window=window, softcap=softcap, sinks=sinks,
        )  # fmt: skip
        torch.testing.assert_close(out[i].double(), wanted, rtol=1e-5, atol=2e-5)
    assert torch.equal(keys, before_keys)
    assert torch.equal(values, before_values)


def test_what_lies_beyond_a_sequence_does_not_matter() -> None:
    """Slots are used again: what an earlier sequence left behind must have no part."""
    keys, values = torch.randn(1, 1, 16, 64), torch.randn(1, 1, 64, 16)
    query, key, value = torch.randn(1, 1, 16), torch.randn(1, 1, 16), torch.randn(1, 1, 16)
    kernel = decode_attention(1, 16, 16, torch.float32)
    assert kernel is not None
    found = []
    for rest in (0.0, 1e20):
        keys[..., 10:], values[:, :, 10:] = rest, rest
        out = torch.empty(1, 1, 16)
        kernel.run(
            query, key, value, keys, values, torch.tensor([0]), torch.tensor([9]), out,
            scaling=1.0, window=None, softcap=None, sinks=None,
        )  # fmt: skip
        found.append(out)
    assert torch.equal(*found)


def test_shapes_without_whole_vectors_have_no_kernel() -> None:
    assert decode_attention(1, 8, 5, torch.float32) is None


def test_numbers_of_another_kind_have_no_kernel() -> None:
    assert decode_attention(1, 16, 16, torch.float16) is None
