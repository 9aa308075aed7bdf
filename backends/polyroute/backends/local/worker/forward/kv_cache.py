"""The memory of keys and values: slots that grow with their sequences, and shared prefixes, under one cap."""

from __future__ import annotations

import torch

from polyroute.backends.local.worker.failures import out_of_memory
from polyroute.backends.local.worker.forward.prefixes import LEAST_TOKENS, Prefixes, Segment, copies
from polyroute.backends.local.worker.forward.slabs import LayerShape, Slab
from polyroute.backends.local.worker.forward.turn import Holder

_FIRST_CAPACITY = 256
_UNIT = 64  # capacities are multiples of it, so that whole vectors fit
_MORE = (1, 32)  # slots that a slab grows by at once; it doubles until then, since growing copies what is there
_MORE_ON_GPU = (8, 128)  # the same where taking memory costs more than a step, and what was recorded is then no more
_SHARE = 16  # the part of the cap beyond which a GPU's first slots are not taken several at a time
_ROOM_AHEAD = 128  # tokens that a new sequence gets room for beyond its prompt, where it may generate as many


class KVCache:
    """See `turn.Memory`. `limit_bytes` holds for slots, taken or not, and prefixes together.

    A sequence has a slot of the smallest capacity that it fits in (they double from `first_capacity` on), and moves
    to a larger one when it outgrows it. `zeroed` is as for `Slab`.
    """

    def __init__(
        self,
        shapes: list[LayerShape],
        dtype: torch.dtype,
        device: torch.device,
        *,
        limit_bytes: int,
        first_capacity: int = _FIRST_CAPACITY,
        zeroed: bool = True,
    ) -> None:
        self._shapes = shapes
        self._dtype = dtype
        self._device = device
        self._zeroed = zeroed
        self._least_more, self._most_more = _MORE if device.type == "cpu" else _MORE_ON_GPU
        self.limit_bytes = limit_bytes
        self._token_bytes = sum(shape.numbers for shape in shapes) * dtype.itemsize
        most = max(1, limit_bytes // self._token_bytes)
        if most > _UNIT:
            most -= most % _UNIT
        self._first = min(first_capacity, most)
        self._most = most
        self._slabs: dict[int, Slab] = {}
        self._places: dict[int, tuple[Slab, int]] = {}
        self.prefixes = Prefixes()

    def __repr__(self) -> str:
        return f"<KVCache {self.used_bytes} of {self.limit_bytes} bytes, {len(self._places)} sequences>"

    @property
    def capacity_tokens(self) -> int:
        """The longest sequence that fits when it is alone."""
        return self._most

    @property
    def used_bytes(self) -> int:
        """Memory of all slots, taken or not, and of the prefixes."""
        tokens = sum(slab.size * slab.capacity for slab in self._slabs.values()) + self.prefixes.tokens
        return tokens * self._token_bytes

    def place(self, sequence: Holder) -> tuple[Slab, int]:
        """Where the keys and values of a sequence are."""
        return self._places[sequence.id]

    def reserve(self, sequence: Holder, tokens: int) -> bool:
        """Makes room for `tokens` of the sequence in all; False, and nothing changed, where the cap leaves none."""
        held = self._places.get(sequence.id)
        if held is not None and held[0].capacity >= tokens:
            return True
        if tokens > self._most:
            return False
        ahead = tokens + min(_ROOM_AHEAD, sequence.room) if held is None else tokens
        slab = self._slab_with_room(self._capacity_for(ahead)) or self._slab_with_room(self._capacity_for(tokens))
        if slab is None:
            return False
        slot = slab.take(sequence, tokens)
        if held is not None:
            slab.copy(held[0], held[1], slot, sequence.processed)
            self._give_back(*held)
        self._places[sequence.id] = (slab, slot)
        return True

    def release(self, sequence: Holder) -> None:
        """Takes the sequence's memory back; nothing where it has none."""
        held = self._places.pop(sequence.id, None)
        if held is not None:
            self._give_back(*held)

    def restore(self, sequence: Holder) -> None:
        """Copies the longest known prefix of the sequence into its slot; at least one token is left to compute."""
        slab, slot = self._places[sequence.id]
        tokens = sequence.tokens(0, sequence.length - 1)
        if self.prefixes.known(tokens) < LEAST_TOKENS:
            return
        for start, segment, count in self.prefixes.match(tokens):
            for keys, known in zip(slab.keys, segment.keys, strict=True):
                keys[slot, :, :, start : start + count] = known[:, :, :count]
            for values, known in zip(slab.values, segment.values, strict=True):
                values[slot, :, start : start + count] = known[:, :count]
            sequence.processed = start + count
        sequence.cached = max(sequence.cached, min(sequence.processed, len(sequence.prompt)))

    def keep(self, sequence: Holder) -> None:
        """Adds the sequence's tokens so far to the prefixes, where the cap has room, older prefixes making some."""
        tokens = sequence.tokens(0, sequence.processed)
        known = self.prefixes.known(tokens)
        added = len(tokens) - known
        if added < LEAST_TOKENS:
            return
        while self.used_bytes + added * self._token_bytes > self.limit_bytes:
            if self.prefixes.tokens <= known or not self.prefixes.evict():
                return
            if self.prefixes.known(tokens) < known:  # evicted what this one builds upon
                return
        slab, slot = self._places[sequence.id]
        try:
            tail = Segment(
                copies([keys[slot, :, :, known : len(tokens)] for keys in slab.keys]),
                copies([values[slot, :, known : len(tokens)] for values in slab.values]),
            )
            self.prefixes.insert(tokens, tail)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):  # if it is, the device has less than the cap says, and nothing is kept
                raise

    def _capacity_for(self, tokens: int) -> int:
        capacity = self._first
        while capacity < tokens and capacity < self._most:
            capacity = min(2 * capacity, self._most)
        return capacity

    def _slab_with_room(self, capacity: int) -> Slab | None:
        slab = self._slabs.get(capacity)
        if slab is not None and len(slab.owners) < slab.size:
            return slab
        slab = slab or Slab(capacity, self._shapes, self._dtype, self._device, zeroed=self._zeroed)
        taken = len(slab.owners)
        least = max(1, min(self._least_more, self.limit_bytes // (_SHARE * capacity * self._token_bytes)))
        for more in range(max(least, min(taken, self._most_more)), 0, -1):
            if self._fits(more * capacity):
                break
        else:
            if not self._free(capacity):
                return None
            more = 1
        self._slabs[capacity] = slab
        return slab if self._grow(slab, more) else None

    def _grow(self, slab: Slab, more: int) -> bool:
        """Adds free slots; False where the device has less memory than the cap says, and others may give some back."""
        for tried, count in enumerate((more, 1)):
            try:
                slab.resize(len(slab.owners) + count)
                return True
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error) or (tried and not self._places):
                    raise
            self._let_go()
        return False

    def _let_go(self) -> None:
        """Frees what can be freed without taking any first, as a copy would."""
        while self.prefixes.evict():
            pass
        for slab in self._slabs.values():
            if not slab.owners:
                slab.resize(0)

    def _fits(self, tokens: int) -> bool:
        return self.used_bytes + tokens * self._token_bytes <= self.limit_bytes

    def _free(self, tokens: int) -> bool:
        """Frees memory that nobody's sequence needs until `tokens` more fit; False where that is not enough."""
        held = sum(len(slab.owners) * slab.capacity for slab in self._slabs.values())
        if (held + tokens) * self._token_bytes > self.limit_bytes:
            return False
        for slab in self._slabs.values():
            if not self._fits(tokens) and len(slab.owners) < slab.size:
                slab.resize(len(slab.owners))
        while not self._fits(tokens):
            self.prefixes.evict()
        return True

    def _give_back(self, slab: Slab, slot: int) -> None:
        moved = slab.give_back(slot)
        if moved is not None:
            self._places[moved.id] = (slab, slot)
