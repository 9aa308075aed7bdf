"""Attention over slots of keys and values on a GPU: a kernel for all who decode, and one for all prompts.

How many tokens each has stands in tensors that the kernels read, so nothing waits for the device, a step over them can
be recorded, and nobody's keys are read beyond what there is of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from polyroute.backends.local.worker.gpu.launch import block, kernels

_LEAST_SHARE = 512  # positions of a query that are worth a program of their own
_MOST_SPLITS = 32
_PROGRAMS = 2  # that a multiprocessor has room for


@dataclass(frozen=True, slots=True)
class Tiles:
    """Pieces of a packed row, each of one slot: `slots` and `past`, int64 [tiles], tell which and what is before.

    Without `chunks`, each is one token, and they follow each other from `start` on. With `chunks`, int64 [3, tiles], a
    tile is of the tokens of a chunk from one on: where the chunk starts in the row, how many tokens it has, and which
    of them is the tile's first.
    """

    slots: torch.Tensor
    past: torch.Tensor
    start: int = 0
    chunks: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class _Shape:
    """How many rows of queries and how many positions a program has at a time, and how many warps work on it."""

    rows: int
    places: int
    warps: int


class SlotAttention:
    """Attention by Triton's kernels, which are compiled when they are first needed.

    Raises `ImportError` without Triton. `programs` is how many the device has room for at once: fewer queries that
    decode are split, where each of the splits then has `least_share` positions or more.
    """

    def __init__(self, programs: int, *, least_share: int = _LEAST_SHARE) -> None:
        self._kernels = kernels()
        self._programs = programs
        self._least_share = least_share

    def tile_tokens(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> int:
        """How many tokens of a chunk make a tile, for tensors as `run` takes them."""
        groups = query.shape[0] // key.shape[0]
        return _shape(query, value, groups, one=False).rows // groups

    def run(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        out: torch.Tensor,
        tiles: Tiles,
        *,
        scaling: float,
        window: int | None = None,
        softcap: float | None = None,
        sinks: torch.Tensor | None = None,
    ) -> None:
        """Takes the tiles' keys and values in, and attends from their tokens to what their slots then hold.

        `query` [heads, tokens, width], `key` and `value` [KV heads, tokens, width] are the whole packed row; `keys`
        [slots, KV heads, width, capacity] and `values` [slots, KV heads, capacity, width] are the slab's; what is found
        goes to the tiles' tokens of `out` [tokens, heads, value width]. `softcap` and `sinks` [heads] are what some
        architectures ask for.
        """
        query, key, value = (of if of.stride(-1) == 1 else of.contiguous() for of in (query, key, value))
        groups, one = query.shape[0] // key.shape[0], tiles.chunks is None
        shape = _shape(query, value, groups, one=one)
        chunks = (tiles.slots,) * 3 if tiles.chunks is None else tiles.chunks.unbind()  # without, they are not read
        table = (tiles.slots, tiles.past, *chunks, tiles.start)
        count, kv_heads = len(tiles.slots), key.shape[0]
        widths = {"KEY_WIDTH": key.shape[2], "VALUE_WIDTH": value.shape[2]}
        blocks = {"KEY_BLOCK": block(key.shape[2]), "VALUE_BLOCK": block(value.shape[2])}
        strides = (*keys.stride()[:3], *values.stride()[:2])
        tokens = 1 if one else shape.rows // groups
        self._kernels.store[(count, kv_heads)](
            key,
            value,
            keys,
            values,
            *table,
            *key.stride()[:2],
            *value.stride()[:2],
            *strides,
            TOKENS=tokens,
            TOKEN_BLOCK=1 if one else block(tokens),
            ONE=one,
            **widths,
            **blocks,
        )
        splits = self._splits(count * kv_heads, keys.shape[3]) if one else 1
        parts = weights = out
        if splits > 1:
            parts = out.new_empty((count, query.shape[0], splits, value.shape[2]), dtype=torch.float32)
            weights = out.new_empty((count, query.shape[0], splits, 2), dtype=torch.float32)
        self._kernels.attend[(count, kv_heads, splits)](
            query,
            keys,
            values,
            out,
            parts,
            weights,
            query if sinks is None else sinks,
            *table,
            *query.stride()[:2],
            *out.stride()[:2],
            *strides,
            scaling,
            softcap or 0.0,
            window or 0,
            splits,
            GROUPS=groups,
            ROWS=shape.rows,
            PLACES=shape.places,
            WINDOW=bool(window),
            SOFTCAP=bool(softcap),
            SINKS=sinks is not None,
            ONE=one,
            SPLIT=splits > 1,
            PRECISION="ieee" if query.dtype is torch.float32 else "tf32",
            num_warps=shape.warps,
            num_stages=2,
            **widths,
            **blocks,
        )
        if splits > 1:
            self._kernels.merge[(count, query.shape[0])](
                parts,
                weights,
                out,
                tiles.start,
                *out.stride()[:2],
                splits,
                VALUE_WIDTH=value.shape[2],
                VALUE_BLOCK=blocks["VALUE_BLOCK"],
                MOST_SPLITS=_MOST_SPLITS,
            )

    def _splits(self, programs: int, capacity: int) -> int:
        """Among how many programs a query's positions are split; it hangs on no length, so that it can be recorded."""
        wanted = min(-(-self._programs // programs), capacity // self._least_share, _MOST_SPLITS)
        return max(1, wanted)


def slot_attention(device: torch.device, *, least_share: int = _LEAST_SHARE) -> SlotAttention | None:
    """What attends on `device`, see `SlotAttention`, which also raises; None where it is no GPU of CUDA's."""
    if device.type != "cuda":
        return None
    processors = torch.cuda.get_device_properties(device).multi_processor_count
    return SlotAttention(_PROGRAMS * processors, least_share=least_share)


def _shape(query: torch.Tensor, value: torch.Tensor, groups: int, *, one: bool) -> _Shape:
    wide = max(block(query.shape[2]), block(value.shape[2]))
    if one:
        return _Shape(block(groups), 64 if wide <= 128 else 32, 4)
    if query.element_size() > 2:  # no tensor cores, and twice the room
        return _Shape(max(32 if wide <= 128 else 16, block(groups)), 32, 4)
    return _Shape(max(128 if wide <= 64 else 64, block(groups)), 64 if wide <= 128 else 32, 4 if wide <= 64 else 8)
