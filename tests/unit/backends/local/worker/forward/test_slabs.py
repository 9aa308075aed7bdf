"""Slots stand at the front, whatever comes and goes, and keep what is in them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from polyroute.backends.local.worker.forward.slabs import LayerShape, Slab

SHAPES = [LayerShape(2, 4, 3), LayerShape(1, 8, 8)]


class Owner:
    def __init__(self, id: int, processed: int) -> None:
        self.id = id
        self.processed = processed


def slab(capacity: int = 10, size: int = 3) -> Slab:
    made = Slab(capacity, SHAPES, torch.float32, torch.device("cpu"))
    made.resize(size)
    return made


def write(into: Slab, slot: int, mark: float, tokens: int) -> None:
    for keys in into.keys:
        keys[slot, :, :, :tokens] = mark + torch.arange(tokens) / 100
    for values in into.values:
        values[slot, :, :tokens] = (mark + torch.arange(tokens) / 100)[:, None]


def holds(slab: Slab, slot: int, mark: float, tokens: int) -> bool:
    wanted = mark + torch.arange(tokens) / 100
    return all(bool((keys[slot, :, :, :tokens] == wanted).all()) for keys in slab.keys) and all(
        bool((values[slot, :, :tokens] == wanted[:, None]).all()) for values in slab.values
    )


def taken(of: Slab, *lengths: int) -> list[Any]:
    owners: list[Any] = [Owner(id, length) for id, length in enumerate(lengths)]
    for owner in owners:
        slot = of.take(owner, owner.processed)
        write(of, slot, owner.id + 1, owner.processed)
    return owners


def test_tensors_have_the_documented_shapes() -> None:
    made = slab(10, 3)
    assert [tuple(t.shape) for t in made.keys] == [(3, 2, 4, 10), (3, 1, 8, 10)]
    assert [tuple(t.shape) for t in made.values] == [(3, 2, 10, 3), (3, 1, 10, 8)]
    assert [shape.numbers for shape in SHAPES] == [14, 16]


def test_when_a_slot_in_the_middle_is_freed_the_last_owner_moves_into_it() -> None:
    made = slab()
    owners = taken(made, 5, 6, 7)
    assert made.give_back(1) is owners[2]
    assert made.owners == [owners[0], owners[2]]
    assert holds(made, 0, 1, 5)
    assert holds(made, 1, 3, 7)


@pytest.mark.parametrize("slot", [2, 1, 0])
def test_the_last_slot_is_freed_without_a_move(slot: int) -> None:
    made = slab()
    owners = taken(made, *[4] * (slot + 1))
    assert made.give_back(slot) is None
    assert made.owners == owners[:slot]


def test_growing_and_shrinking_keep_what_is_taken() -> None:
    made = slab(10, 2)
    taken(made, 5, 10)
    for size in (5, 2):
        made.resize(size)
        assert made.size == size
        assert {t.shape[0] for t in (*made.keys, *made.values)} == {size}
        assert holds(made, 0, 1, 5)
        assert holds(made, 1, 2, 10)


def test_a_slot_that_is_taken_again_has_no_former_numbers_beyond_its_owners_tokens() -> None:
    made = slab()
    taken(made, 3, 3)
    made.keys[0][:] = float("nan")
    made.values[1][:] = float("nan")
    made.give_back(1)
    made.take(Owner(9, 0), 4)  # type: ignore[arg-type]
    assert bool((made.keys[0][1, :, :, 4:] == 0).all())
    assert bool((made.values[1][1, :, 4:] == 0).all())


def test_a_copy_brings_the_first_tokens_into_a_slab_of_another_capacity() -> None:
    small, large = slab(8), slab(16)
    taken(small, 8, 8)
    small.owners.clear()
    large.take(Owner(1, 0), 8)  # type: ignore[arg-type]
    large.copy(small, 1, 0, 8)
    assert holds(large, 0, 2, 8)
    assert bool((large.keys[0][0, :, :, 8:] == 0).all())


@pytest.mark.parametrize("zeroed", [True, False])
def test_what_a_former_owner_left_is_zeroed_unless_nobody_reads_it(zeroed: bool) -> None:
    made = Slab(10, SHAPES, torch.float32, torch.device("cpu"), zeroed=zeroed)
    made.resize(1)
    write(made, 0, 1.0, 10)
    slot = made.take(Owner(1, 0), 4)  # type: ignore[arg-type]
    assert holds(made, slot, 1.0, 4)
    assert all(bool((keys[slot, :, :, 4:] == 0).all()) is zeroed for keys in made.keys)
