"""Slots for keys and values, all of one capacity in one tensor a layer, so that one matrix product serves them all."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from polyroute.backends.local.worker.forward.turn import Holder


@dataclass(frozen=True, slots=True)
class LayerShape:
    """What one layer keeps of a token: `heads` keys of `key_width` and values of `value_width` numbers."""

    heads: int
    key_width: int
    value_width: int

    @property
    def numbers(self) -> int:
        """How many numbers a token takes."""
        return self.heads * (self.key_width + self.value_width)


class Slab:
    """Slots of `capacity` tokens; those taken stand at the front, in the order of `owners`.

    `keys[layer]` is [slots, heads, key width, capacity], transposed since decoding multiplies a query with it at once;
    `values[layer]` is [slots, heads, capacity, value width]. With `zeroed`, what nobody has written yet is zeros.
    """

    def __init__(
        self,
        capacity: int,
        shapes: list[LayerShape],
        dtype: torch.dtype,
        device: torch.device,
        *,
        zeroed: bool = True,
    ) -> None:
        self.capacity = capacity
        self._zeroed = zeroed
        self.size = 0
        self.moves = 0  # how often its tensors have been replaced by others
        self.owners: list[Holder] = []
        options = {"dtype": dtype, "device": device}
        self.keys = [torch.zeros((0, s.heads, s.key_width, capacity), **options) for s in shapes]  # type: ignore[call-overload]
        self.values = [torch.zeros((0, s.heads, capacity, s.value_width), **options) for s in shapes]  # type: ignore[call-overload]

    def __repr__(self) -> str:
        return f"<Slab of {self.capacity}: {len(self.owners)} of {self.size} slots taken>"

    def resize(self, size: int) -> None:
        """Has `size` slots from now on, at least as many as are taken; a layer at a time, so no second copy stands.

        Where memory runs out, those that are taken stand as they did.
        """
        taken = len(self.owners)
        self.moves += 1
        self.size = min(self.size, size)
        for tensors in (self.keys, self.values):
            for layer, old in enumerate(tensors):
                shape = (size, *old.shape[1:])
                new = old.new_zeros(shape) if self._zeroed else old.new_empty(shape)
                new[:taken] = old[:taken]
                tensors[layer] = new
        self.size = size

    def take(self, owner: Holder, tokens: int) -> int:
        """The slot that is the owner's from now on; there must be one that is free.

        The owner writes its first `tokens` before they count. Beyond, a former owner's numbers could be NaN, which
        spread through any mask where slots of several lengths are multiplied at once: zeros take their place, unless
        what attends reads nothing there, and the slab is not `zeroed`.
        """
        slot = len(self.owners)
        if self._zeroed:
            for keys, values in zip(self.keys, self.values, strict=True):
                keys[slot, :, :, tokens:] = 0
                values[slot, :, tokens:] = 0
        self.owners.append(owner)
        return slot

    def give_back(self, slot: int) -> Holder | None:
        """Frees a slot; the owner of the last one moves into it, and is returned where that is another."""
        last = self.owners.pop()
        if slot == len(self.owners):
            return None
        self.copy(self, len(self.owners), slot, self.capacity)
        self.owners[slot] = last
        return last

    def copy(self, source: Slab, from_slot: int, to_slot: int, tokens: int) -> None:
        """Copies the first `tokens` of a slot of `source` into one of this slab."""
        for new, old in zip(self.keys, source.keys, strict=True):
            new[to_slot, :, :, :tokens] = old[from_slot, :, :, :tokens]
        for new, old in zip(self.values, source.values, strict=True):
            new[to_slot, :, :tokens] = old[from_slot, :, :tokens]
