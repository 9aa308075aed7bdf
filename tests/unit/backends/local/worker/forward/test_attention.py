"""Attention over packed tokens equals the definition, written out plainly, for every style and any mixture of rows."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from polyroute.backends.local.worker.forward import attention
from polyroute.backends.local.worker.forward.attention import (
    BATCH,
    Batch,
    Decoding,
    NotPackable,
    Prefilling,
    Style,
    attend,
    packed_attention,
)
from polyroute.backends.local.worker.forward.slabs import LayerShape, Slab

KV_HEADS, GROUPS, WIDTH, VALUE_WIDTH = 2, 3, 8, 16
HEADS = KV_HEADS * GROUPS
CPU = torch.device("cpu")
STYLES = {
    "plain": Style(0.3, None, None, None),
    "window": Style(0.3, 7, None, None),
    "window of one": Style(0.3, 1, None, None),
    "soft cap": Style(0.3, None, 1.5, None),
    "sinks": Style(0.3, None, None, torch.linspace(-1, 2, HEADS)),
    "all": Style(0.3, 7, 1.5, torch.linspace(-1, 2, HEADS)),
}


def defined(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, style: Style) -> torch.Tensor:
    """The last token's attention: `query` [heads, width], `keys` and `values` [KV heads, tokens, width]."""
    rows = []
    for head in range(HEADS):
        seen = slice(max(0, keys.shape[1] - (style.window or keys.shape[1])), None)
        scores = keys[head // GROUPS, seen].double() @ query[head].double() * style.scaling
        if style.softcap:
            scores = style.softcap * torch.tanh(scores / style.softcap)
        sink = [] if style.sinks is None else [style.sinks[head].double()[None]]
        weights = torch.cat([scores, *sink]).softmax(0)[: len(scores)]
        rows.append(weights @ values[head // GROUPS, seen].double())
    return torch.stack(rows)


class Text:
    """A sequence's own queries, keys and values."""

    def __init__(self, length: int) -> None:
        self.id, self.processed = 0, 0
        self.query = torch.randn(HEADS, length, WIDTH)
        self.key = torch.randn(KV_HEADS, length, WIDTH)
        self.value = torch.randn(KV_HEADS, length, VALUE_WIDTH)

    def defined(self, place: int, style: Style) -> torch.Tensor:
        return defined(self.query[:, place], self.key[:, : place + 1], self.value[:, : place + 1], style)


def row(*parts: tuple[Text, int, int]) -> list[torch.Tensor]:
    """Queries, keys and values of pieces of texts, side by side."""
    return [
        torch.cat([getattr(text, name)[:, start:stop] for text, start, stop in parts], 1)
        for name in ("query", "key", "value")
    ]


def slab(capacity: int, slots: int) -> Slab:
    made = Slab(capacity, [LayerShape(KV_HEADS, WIDTH, VALUE_WIDTH)], torch.float32, CPU)
    made.resize(slots)
    for keys in (*made.keys, *made.values):
        keys.copy_(torch.randn_like(keys))  # what former owners left
    return made


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("name", STYLES)
def test_a_mixture_of_chunks_and_decoding_equals_the_definition(
    name: str, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compiled:
        monkeypatch.setattr(attention, "_compiled", lambda *_: None)
    torch.manual_seed(0)
    chance, style = random.Random(1), STYLES[name]
    small, large = slab(32, 5), slab(64, 2)
    # Slots 1 and 3 of the small slab decode in between others that are being read or are empty.
    places: list[tuple[Slab, int]] = [(small, 1), (small, 3), (small, 0), (large, 1), (large, 0)]
    texts = [Text(30) for _ in places]
    past = [0] * len(texts)
    for _ in range(12):
        batch, parts, at = Batch(), [], 0
        by_slab: list[tuple[Slab, list[int]]] = [(small, [0, 1]), (large, [4, 3])]
        for group, members in by_slab:
            ready = [i for i in members if 0 < past[i] < 30]
            if ready:
                slots, before = [places[i][1] for i in ready], [past[i] for i in ready]
                batch.decoding.append(Decoding(group, slots, before, at))
                parts += [(i, past[i], past[i] + 1) for i in ready]
                at += len(ready)
        for i in [i for i in range(len(texts)) if past[i] == 0 or i == 2]:
            count = min(chance.randrange(1, 9), 30 - past[i])
            if count:
                batch.prefilling.append(Prefilling(*places[i], past[i], count, at))
                parts.append((i, past[i], past[i] + count))
                at += count
        found = attend(batch, 0, *row(*((texts[i], start, stop) for i, start, stop in parts)), style)
        wanted = [texts[i].defined(place, style) for i, start, stop in parts for place in range(start, stop)]
        torch.testing.assert_close(found.double(), torch.stack(wanted), atol=2e-5, rtol=1e-4)
        for i, _, stop in parts:
            past[i] = stop


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", STYLES)
def test_half_precision_is_near(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    style, text = STYLES[name], Text(20)
    made = Slab(32, [LayerShape(KV_HEADS, WIDTH, VALUE_WIDTH)], dtype, CPU)
    made.resize(1)
    chunk = Batch(prefilling=[Prefilling(made, 0, 0, 19, 0)])
    read = attend(chunk, 0, *(t.to(dtype) for t in row((text, 0, 19))), style)
    decoded = attend(
        Batch(decoding=[Decoding(made, [0], [19], 0)]), 0, *(t.to(dtype) for t in row((text, 19, 20))), style
    )
    wanted = torch.stack([text.defined(place, style) for place in range(20)])
    torch.testing.assert_close(torch.cat([read, decoded]).double(), wanted, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("style", [STYLES["plain"], STYLES["window"]])
def test_decoding_leaves_the_slots_of_others_alone(
    compiled: bool, style: Style, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compiled:
        monkeypatch.setattr(attention, "_compiled", lambda *_: None)
    torch.manual_seed(0)
    made, text = slab(32, 4), Text(20)
    before = [t.clone() for t in (*made.keys, *made.values)]
    attend(Batch(decoding=[Decoding(made, [2], [11], 0)]), 0, *row((text, 11, 12)), style)
    keys, values = made.keys[0], made.values[0]
    assert torch.equal(keys[2, :, :, 11], text.key[:, 11])
    assert torch.equal(values[2, :, 11], text.value[:, 11])
    keys[2, :, :, 11], values[2, :, 11] = before[0][2, :, :, 11], before[1][2, :, 11]
    assert torch.equal(keys, before[0])
    assert torch.equal(values, before[1])


class Module:
    layer_idx = 0


def call(batch: Batch | None = None, module: Any = None, rows: int = 1, **asked: Any) -> Any:
    query = torch.randn(rows, HEADS, 3, WIDTH)
    key, value = torch.randn(rows, KV_HEADS, 3, WIDTH), torch.randn(rows, KV_HEADS, 3, VALUE_WIDTH)
    given = {} if batch is None else {BATCH: batch}
    return packed_attention(module or Module(), query, key, value, None, **given, **asked)


def test_a_probe_notes_what_a_layer_keeps() -> None:
    batch = Batch(shapes={})
    found, _ = call(batch)
    assert found.shape == (1, 3, HEADS, VALUE_WIDTH)
    assert batch.shapes == {0: LayerShape(KV_HEADS, WIDTH, VALUE_WIDTH)}
    assert batch.dtype is torch.float32
    with pytest.raises(NotPackable, match="twice"):
        call(batch)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"batch": None}, "without what a step passes"),
        ({"batch": Batch(), "module": object()}, "without what a step passes"),
        ({"batch": Batch(), "rows": 2}, "regroups tokens"),
        ({"batch": Batch(), "head_mask": torch.ones(1)}, "takes head_mask"),
    ],
)
def test_what_is_not_known_is_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(NotPackable, match=why):
        call(**options)


def test_what_is_harmless_or_not_given_is_not_refused() -> None:
    call(Batch(shapes={}), is_causal=True, use_cache=False, head_mask=None)
