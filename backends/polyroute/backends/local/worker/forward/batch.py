"""How the tokens of a packed row belong together, and which of the others each of them sees."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from polyroute.backends.local.worker.forward.slabs import LayerShape, Slab
from polyroute.backends.local.worker.gpu.attention import SlotAttention, Tiles

BATCH = "polyroute_batch"  # the keyword under which a `Batch` travels through the model's code


@dataclass(slots=True)
class Decoding:
    """Sequences of one slab that get one token each: tokens `start` to `stop` of the row. `slots` are in order."""

    slab: Slab
    slots: list[int]
    past: list[int]  # tokens of each one before this
    start: int
    _masks: dict[int, torch.Tensor | None] = field(default_factory=dict)
    _index: torch.Tensor | None = None
    _positions: torch.Tensor | None = None

    @property
    def stop(self) -> int:
        """Where its tokens end in the row."""
        return self.start + len(self.slots)

    @property
    def rows(self) -> int:
        """How many slots take part in the products: those up to the last that decodes."""
        return self.slots[-1] + 1

    def index(self, device: torch.device) -> torch.Tensor:
        """`slots` as a tensor."""
        if self._index is None:
            self._index = torch.tensor(self.slots, device=device)
        return self._index

    def positions(self, device: torch.device) -> torch.Tensor:
        """`past` as a tensor: where the new keys and values go."""
        if self._positions is None:
            self._positions = torch.tensor(self.past, device=device)
        return self._positions

    def first(self, window: int | None) -> int:
        """The first position that any of them sees."""
        return max(0, min(self.past) - window + 1) if window else 0

    def mask(self, window: int | None, like: torch.Tensor, heads: int) -> torch.Tensor | None:
        """What is added to the scores, [rows * heads, 1, positions]; None where all see all."""
        key = window or 0
        if key not in self._masks:
            self._masks[key] = self._make_mask(window, like, heads)
        return self._masks[key]

    def _make_mask(self, window: int | None, like: torch.Tensor, heads: int) -> torch.Tensor | None:
        first, last = self.first(window), max(self.past)
        whole = len(self.slots) == self.rows
        if whole and min(self.past) == last and (not window or last < window):
            return None
        past = torch.zeros(self.rows, dtype=torch.long, device=like.device)
        past[self.index(like.device)] = self.positions(like.device)
        place, past = torch.arange(first, last + 1, device=like.device)[None], past[:, None]
        hidden = place > past
        if window:
            hidden |= place <= past - window
        mask = torch.zeros(hidden.shape, dtype=like.dtype, device=like.device).masked_fill_(hidden, float("-inf"))
        return mask[:, None].repeat_interleave(heads, 0)


@dataclass(slots=True)
class Fixed:
    """The first slots of a slab, one token each, which are the row's from `start` on.

    How many tokens a slot has stands in a tensor alone, so that a step over them does the same operations in the same
    places whatever they hold, and can be recorded. All of the capacity is computed with; what is not there is masked.
    """

    slab: Slab
    start: int
    slots: torch.Tensor  # [rows], int64: 0, 1, ...
    past: torch.Tensor  # [rows], int64: tokens of each one before this
    _masks: dict[int, torch.Tensor] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """How many slots there are."""
        return len(self.slots)

    @property
    def stop(self) -> int:
        """Where its tokens end in the row."""
        return self.start + self.rows

    def mask(self, window: int | None, like: torch.Tensor, heads: int) -> torch.Tensor:
        """What is added to the scores, [rows * heads, 1, capacity]."""
        key = window or 0
        if key not in self._masks:
            place, past = torch.arange(self.slab.capacity, device=like.device)[None], self.past[:, None]
            hidden = place > past
            if window:
                hidden |= place <= past - window
            mask = torch.zeros(hidden.shape, dtype=like.dtype, device=like.device).masked_fill_(hidden, float("-inf"))
            self._masks[key] = mask[:, None, None].expand(-1, heads, -1, -1).flatten(0, 1)
        return self._masks[key]


@dataclass(slots=True)
class Prefilling:
    """A chunk of one sequence: tokens `start` to `start + count` of the row, after `past` others in its slot."""

    slab: Slab
    slot: int
    past: int
    count: int
    start: int
    _masks: dict[tuple[int, int], torch.Tensor] = field(default_factory=dict)

    def first(self, window: int | None) -> int:
        """The first position that any of the chunk's tokens sees."""
        return max(0, self.past - window + 1) if window else 0

    def mask(self, window: int | None, like: torch.Tensor, groups: int) -> torch.Tensor:
        """What is added to the scores, [groups * count, positions]."""
        key = (window or 0, groups)
        if key not in self._masks:
            end = self.past + self.count
            query = torch.arange(self.past, end, device=like.device)[:, None]
            place = torch.arange(self.first(window), end, device=like.device)[None]
            hidden = place > query
            if window:
                hidden |= place <= query - window
            mask = torch.zeros(hidden.shape, dtype=like.dtype, device=like.device)
            self._masks[key] = mask.masked_fill_(hidden, float("-inf")).repeat(groups, 1)
        return self._masks[key]


@dataclass(slots=True)
class Batch:
    """How the tokens of a row belong together. With `shapes`, a mere probe: what each layer is given is noted.

    `kernels` attend to all of them; without, torch's operations do, group by group and chunk by chunk.
    """

    decoding: list[Decoding] = field(default_factory=list)
    fixed: list[Fixed] = field(default_factory=list)
    prefilling: list[Prefilling] = field(default_factory=list)
    kernels: SlotAttention | None = None
    shapes: dict[int, LayerShape] | None = None
    dtype: torch.dtype | None = None
    _tiles: dict[int, list[tuple[Slab, Tiles]]] = field(default_factory=dict)

    def tiles(self, tokens: int, device: torch.device) -> list[tuple[Slab, Tiles]]:
        """The row in tiles, as kernels take them, by slab; those of chunks have up to `tokens` tokens."""
        if tokens not in self._tiles:
            found = [(g.slab, Tiles(g.index(device), g.positions(device), g.start)) for g in self.decoding]
            found += [(g.slab, Tiles(g.slots, g.past, g.start)) for g in self.fixed]
            by_slab: dict[Slab, list[Prefilling]] = {}
            for chunk in self.prefilling:
                by_slab.setdefault(chunk.slab, []).append(chunk)
            found += [(slab, _chunk_tiles(chunks, tokens, device)) for slab, chunks in by_slab.items()]
            self._tiles[tokens] = found
        return self._tiles[tokens]


def _chunk_tiles(chunks: list[Prefilling], tokens: int, device: torch.device) -> Tiles:
    table = [
        (chunk.slot, chunk.past, chunk.start, chunk.count, first)
        for chunk in chunks
        for first in range(0, chunk.count, tokens)
    ]
    columns = torch.tensor(list(zip(*table, strict=True))).to(device)
    return Tiles(columns[0], columns[1], chunks=columns[2:])
