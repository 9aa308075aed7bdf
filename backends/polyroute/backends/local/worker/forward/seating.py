"""Who sits where in a step that can be recorded: a row for each of the first slots of each slab, decoding or not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

from polyroute.backends.local.worker.forward.slabs import Slab
from polyroute.backends.local.worker.forward.turn import Holder

_DOUBLING = 32  # rows up to which their number doubles from one bucket to the next

Table: TypeAlias = tuple[Slab, int, int]
"""A slab, its `moves`, and how many of its slots take part."""


@dataclass(frozen=True, slots=True)
class Seating:
    """The rows of a step, slot by slot of each of `tables`; steps with equal tables differ in numbers alone.

    `order` holds the row of each sequence that was asked for, in the order of asking.
    """

    tables: tuple[Table, ...]
    tokens: list[int]
    positions: list[int]
    order: list[int]

    @property
    def rows(self) -> int:
        """How many rows there are, idle ones included."""
        return len(self.tokens)


def seat(
    decoding: Sequence[Holder],
    place: Callable[[Holder], tuple[Slab, int]],
    at_least: Mapping[Slab, int] = MappingProxyType({}),
) -> Seating | None:
    """Seats sequences that get one token each; `place` says where their keys and values are.

    At least `at_least` slots of a slab take part, which must have so many.

    A row that nobody asked for computes along with token 0, and is thrown away. What it leaves in its slot is harmless:
    it stands where the slot's owner writes next, which is before anyone looks there. None where a slot between the
    others is full to the brim, and so has no such place.
    """
    by_slab: dict[Slab, dict[int, Holder]] = {}
    for sequence in decoding:
        slab, slot = place(sequence)
        by_slab.setdefault(slab, {})[slot] = sequence
    tables: list[Table] = []
    tokens: list[int] = []
    positions: list[int] = []
    rows: dict[int, int] = {}
    for slab in sorted(by_slab, key=lambda slab: slab.capacity):
        seated = by_slab[slab]
        count = max(bucket(max(seated) + 1, slab.size), at_least.get(slab, 0))
        tables.append((slab, slab.moves, count))
        for slot in range(count):
            member = seated.get(slot)
            if member is not None:
                rows[member.id] = len(tokens)
            token, position = _idle(slab, slot) if member is None else _next(member)
            if position >= slab.capacity:
                return None
            tokens.append(token)
            positions.append(position)
    return Seating(tuple(tables), tokens, positions, [rows[sequence.id] for sequence in decoding])


def bucket(rows: int, size: int) -> int:
    """How many slots take part where `rows` have to: few numbers, so that few steps are recorded.

    The next power of two, beyond 32 the next multiple of 32, and at most `size`, the slots that there are.
    """
    few = rows <= _DOUBLING
    return min(1 << (rows - 1).bit_length() if few else -(-rows // _DOUBLING) * _DOUBLING, size)


def _next(sequence: Holder) -> tuple[int, int]:
    return sequence.tokens(sequence.processed, sequence.processed + 1)[0], sequence.processed


def _idle(slab: Slab, slot: int) -> tuple[int, int]:
    return 0, slab.owners[slot].processed if slot < len(slab.owners) else 0
