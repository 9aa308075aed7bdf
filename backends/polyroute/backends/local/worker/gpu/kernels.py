"""What runs on the GPU itself: attention over slots of keys and values, and the small things that a layer does.

Only `attention` and `rows` launch these. Capitals are known when a kernel is compiled; lengths, slots and windows are
not, so nobody who joins has one compiled anew.
"""

from __future__ import annotations

import triton
import triton.language as tl

_LOG2E = tl.constexpr(1.4426950408889634)
_NONE = tl.constexpr(float("-inf"))
_TABLE = ["slots", "past", "starts", "counts", "firsts"]  # parts of larger tensors, which begin anywhere


@triton.jit(do_not_specialize=["start"], do_not_specialize_on_alignment=_TABLE)
def store(
    key,  # [KV heads, tokens, KEY_WIDTH], its last stride 1
    value,  # [KV heads, tokens, VALUE_WIDTH], likewise
    keys,  # [slots, KV heads, KEY_WIDTH, capacity]
    values,  # [slots, KV heads, capacity, VALUE_WIDTH]
    slots,
    past,
    starts,
    counts,
    firsts,
    start,
    key_head,
    key_token,
    value_head,
    value_token,
    keys_slot,
    keys_head,
    keys_width,
    values_slot,
    values_head,
    TOKENS: tl.constexpr,  # of a tile
    TOKEN_BLOCK: tl.constexpr,
    KEY_WIDTH: tl.constexpr,
    VALUE_WIDTH: tl.constexpr,
    KEY_BLOCK: tl.constexpr,
    VALUE_BLOCK: tl.constexpr,
    ONE: tl.constexpr,
):
    """Puts a tile's keys and values of one head where they belong; the grid is [tiles, KV heads]."""
    tile = tl.program_id(0)
    head = tl.program_id(1)
    slot = tl.load(slots + tile).to(tl.int64)
    before = tl.load(past + tile)
    token = tl.arange(0, TOKEN_BLOCK)
    if ONE:
        row = start + tile
        there = token < 1
    else:
        first = tl.load(firsts + tile)
        row = tl.load(starts + tile) + first
        before += first
        there = (token < TOKENS) & (first + token < tl.load(counts + tile))
    wide = tl.arange(0, KEY_BLOCK)
    mask = there[:, None] & (wide < KEY_WIDTH)[None, :]
    found = tl.load(key + head * key_head + (row + token)[:, None] * key_token + wide[None, :], mask=mask)
    to = keys + slot * keys_slot + head.to(tl.int64) * keys_head + (before + token)[:, None]
    tl.store(to + wide[None, :] * keys_width, found, mask=mask)
    wide = tl.arange(0, VALUE_BLOCK)
    mask = there[:, None] & (wide < VALUE_WIDTH)[None, :]
    found = tl.load(value + head * value_head + (row + token)[:, None] * value_token + wide[None, :], mask=mask)
    to = values + slot * values_slot + head.to(tl.int64) * values_head + (before + token)[:, None] * VALUE_WIDTH
    tl.store(to + wide[None, :], found, mask=mask)


@triton.jit(do_not_specialize=["start", "splits", "window"], do_not_specialize_on_alignment=_TABLE)
def attend(
    query,  # [heads, tokens, KEY_WIDTH], its last stride 1
    keys,  # [slots, KV heads, KEY_WIDTH, capacity]
    values,  # [slots, KV heads, capacity, VALUE_WIDTH]
    out,  # [tokens, heads, VALUE_WIDTH]
    parts,  # float32 [tiles, heads, splits, VALUE_WIDTH]: each split's weighted sum of values
    weights,  # float32 [tiles, heads, splits, 2]: its greatest score, in powers of 2, and its sum of weights
    sinks,  # [heads]
    slots,
    past,
    starts,
    counts,
    firsts,
    start,
    query_head,
    query_token,
    out_token,
    out_head,
    keys_slot,
    keys_head,
    keys_width,
    values_slot,
    values_head,
    scaling,
    softcap,
    window,
    splits,
    GROUPS: tl.constexpr,  # query heads of a KV head
    ROWS: tl.constexpr,  # of a tile: its tokens' queries, GROUPS each
    PLACES: tl.constexpr,  # positions that are looked at at once
    KEY_WIDTH: tl.constexpr,
    VALUE_WIDTH: tl.constexpr,
    KEY_BLOCK: tl.constexpr,
    VALUE_BLOCK: tl.constexpr,
    WINDOW: tl.constexpr,
    SOFTCAP: tl.constexpr,
    SINKS: tl.constexpr,
    ONE: tl.constexpr,
    SPLIT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """A tile's queries of one KV head over what its slot holds; the grid is [tiles, KV heads, splits].

    An online softmax (FlashAttention, Dao et al., 2022); where one token alone is asked for, its positions may be split
    among programs (Flash-Decoding, 2023), whose shares `merge` puts together.
    """
    tile = tl.program_id(0)
    head = tl.program_id(1)
    slot = tl.load(slots + tile).to(tl.int64)
    before = tl.load(past + tile).to(tl.int32)
    if ONE:
        row = start + tile
        count = 1
        first = 0
    else:
        row = tl.load(starts + tile)
        count = tl.load(counts + tile).to(tl.int32)
        first = tl.load(firsts + tile).to(tl.int32)
    rows = tl.arange(0, ROWS)
    token = first + rows // GROUPS
    there = (rows < ROWS // GROUPS * GROUPS) & (token < count)
    heads = head * GROUPS + rows % GROUPS
    wide = tl.arange(0, KEY_BLOCK)
    asked = tl.load(
        query + heads[:, None] * query_head + (row + token)[:, None] * query_token + wide[None, :],
        mask=there[:, None] & (wide < KEY_WIDTH)[None, :],
        other=0.0,
    )
    place = before + token
    begin = 0
    end = before + tl.minimum(count, first + ROWS // GROUPS)
    if WINDOW:
        begin = tl.maximum(before + first - window + 1, 0) // PLACES * PLACES
    if SPLIT:
        share = tl.cdiv(tl.cdiv(end - begin, PLACES), splits) * PLACES
        begin += tl.program_id(2) * share
        end = tl.minimum(end, begin + share)
    best = tl.full([ROWS], _NONE, tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    if SINKS:
        sink = tl.load(sinks + heads, mask=there, other=0.0).to(tl.float32) * _LOG2E
        if SPLIT:
            best = tl.where(tl.program_id(2) == 0, sink, best)
            total = tl.where(tl.program_id(2) == 0, 1.0, total)
        else:
            best = sink
            total += 1.0
    found = tl.zeros([ROWS, VALUE_BLOCK], tl.float32)
    value_wide = tl.arange(0, VALUE_BLOCK)
    keys += slot * keys_slot + head.to(tl.int64) * keys_head
    values += slot * values_slot + head.to(tl.int64) * values_head
    for at in range(begin, end, PLACES):
        places = at + tl.arange(0, PLACES)
        known = places < end
        seen_keys = tl.load(
            keys + wide[:, None] * keys_width + places[None, :],
            mask=(wide < KEY_WIDTH)[:, None] & known[None, :],
            other=0.0,
        )
        scores = tl.dot(asked, seen_keys.to(asked.dtype), input_precision=PRECISION) * scaling
        if SOFTCAP:  # tanh, by what there is of it
            scores = softcap * (2.0 * tl.sigmoid(2.0 * scores / softcap) - 1.0)
        seen = (places[None, :] <= place[:, None]) & known[None, :]
        if WINDOW:
            seen = seen & (places[None, :] > place[:, None] - window)
        scores = tl.where(seen, scores * _LOG2E, _NONE)
        greatest = tl.maximum(best, tl.max(scores, 1))
        level = tl.where(greatest == _NONE, 0.0, greatest)  # of a row that has seen nothing yet
        shares = tl.exp2(scores - level[:, None])
        fading = tl.exp2(best - level)
        total = total * fading + tl.sum(shares, 1)
        seen_values = tl.load(
            values + places[:, None] * VALUE_WIDTH + value_wide[None, :],
            mask=known[:, None] & (value_wide < VALUE_WIDTH)[None, :],
            other=0.0,
        )
        shares = shares.to(asked.dtype)
        found = found * fading[:, None] + tl.dot(shares, seen_values.to(asked.dtype), input_precision=PRECISION)
        best = greatest
    mask = there[:, None] & (value_wide < VALUE_WIDTH)[None, :]
    if SPLIT:
        part = (tile * (tl.num_programs(1) * GROUPS) + heads) * splits + tl.program_id(2)
        tl.store(parts + part[:, None] * VALUE_WIDTH + value_wide[None, :], found, mask=mask)
        tl.store(weights + part * 2, best, mask=there)
        tl.store(weights + part * 2 + 1, total, mask=there)
    else:
        found = found / tl.where(total == 0.0, 1.0, total)[:, None]
        to = out + (row + token)[:, None] * out_token + heads[:, None] * out_head + value_wide[None, :]
        tl.store(to, found.to(out.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["start", "splits"])
def merge(
    parts,
    weights,
    out,
    start,
    out_token,
    out_head,
    splits,
    VALUE_WIDTH: tl.constexpr,
    VALUE_BLOCK: tl.constexpr,
    MOST_SPLITS: tl.constexpr,
):
    """Puts the splits of one query together, see `attend`; the grid is [tokens, heads]."""
    query = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
    split = tl.arange(0, MOST_SPLITS)
    there = split < splits
    place = query * splits + split
    best = tl.load(weights + place * 2, mask=there, other=_NONE)
    share = tl.exp2(best - tl.max(best, 0))
    total = tl.sum(tl.load(weights + place * 2 + 1, mask=there, other=0.0) * share, 0)
    wide = tl.arange(0, VALUE_BLOCK)
    found = tl.load(
        parts + place[:, None] * VALUE_WIDTH + wide[None, :],
        mask=there[:, None] & (wide < VALUE_WIDTH)[None, :],
        other=0.0,
    )
    summed = tl.sum(found * share[:, None], 0) / total
    to = out + (start + tl.program_id(0)) * out_token + tl.program_id(1) * out_head + wide
    tl.store(to, summed.to(out.dtype.element_ty), mask=wide < VALUE_WIDTH)


@triton.jit
def norm(x, weight, out, epsilon, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    """A row of x over the root of the mean of its squares, times `weight`; the grid is [rows]."""
    row = tl.program_id(0).to(tl.int64) * COLUMNS
    at = tl.arange(0, BLOCK)
    mask = at < COLUMNS
    numbers = tl.load(x + row + at, mask=mask, other=0.0).to(tl.float32)
    scaled = numbers * tl.rsqrt(tl.sum(numbers * numbers, 0) / COLUMNS + epsilon)
    scaled = scaled.to(out.dtype.element_ty).to(tl.float32)  # rounded here, as transformers does
    factors = tl.load(weight + at, mask=mask, other=0.0).to(tl.float32)
    tl.store(out + row + at, (scaled * factors).to(out.dtype.element_ty), mask=mask)


@triton.jit
def rotate(
    x,
    cosines,
    sines,
    stride,
    HEADS: tl.constexpr,
    HEAD_BLOCK: tl.constexpr,
    HALF: tl.constexpr,
    HALF_BLOCK: tl.constexpr,
):
    """Turns the first HEADS heads of a row of x by its angles, in place; the grid is [rows]."""
    row = tl.program_id(0).to(tl.int64)
    head = tl.arange(0, HEAD_BLOCK)
    half = tl.arange(0, HALF_BLOCK)
    within = half < HALF
    angle = row * 2 * HALF + half
    low_cos = tl.load(cosines + angle, mask=within, other=0.0).to(tl.float32)
    low_sin = tl.load(sines + angle, mask=within, other=0.0).to(tl.float32)
    high_cos = tl.load(cosines + angle + HALF, mask=within, other=0.0).to(tl.float32)
    high_sin = tl.load(sines + angle + HALF, mask=within, other=0.0).to(tl.float32)
    mask = (head < HEADS)[:, None] & within[None, :]
    at = x + row * stride + head[:, None] * (2 * HALF) + half[None, :]
    low = tl.load(at, mask=mask, other=0.0).to(tl.float32)
    high = tl.load(at + HALF, mask=mask, other=0.0).to(tl.float32)
    kind = x.dtype.element_ty
    tl.store(at, (low * low_cos[None, :] - high * low_sin[None, :]).to(kind), mask=mask)
    tl.store(at + HALF, (high * high_cos[None, :] + low * high_sin[None, :]).to(kind), mask=mask)


@triton.jit
def gate(x, out, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    """silu of the first COLUMNS of a row of x times the others; the grid is [rows, blocks of columns]."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = at < COLUMNS
    gates = tl.load(x + row * 2 * COLUMNS + at, mask=mask, other=0.0).to(tl.float32)
    ups = tl.load(x + row * 2 * COLUMNS + COLUMNS + at, mask=mask, other=0.0).to(tl.float32)
    kind = out.dtype.element_ty
    opened = (gates * tl.sigmoid(gates)).to(kind).to(tl.float32)
    tl.store(out + row * COLUMNS + at, (opened * ups).to(kind), mask=mask)
