"""Each sequence finds its row, and idle rows leave nothing where anyone would look."""

from __future__ import annotations

import pytest
import torch

from polyroute.backends.local.worker.forward.seating import bucket, seat
from polyroute.backends.local.worker.forward.slabs import LayerShape, Slab


class Member:
    """A sequence of tokens 100, 101, ... of which `processed` are in memory."""

    def __init__(self, id: int, processed: int) -> None:
        self.id = id
        self.processed = processed

    def tokens(self, start: int, stop: int) -> list[int]:
        return list(range(100 + start, 100 + stop))


def slab(capacity: int, size: int, *processed: int) -> Slab:
    made = Slab(capacity, [LayerShape(1, 2, 2)], torch.float32, torch.device("cpu"))
    made.resize(size)
    for slot, count in enumerate(processed):
        made.take(Member(capacity + slot, count), count)  # type: ignore[arg-type]
    return made


def places(*slabs: Slab):  # type: ignore[no-untyped-def]
    return {owner.id: (slab, slot) for slab in slabs for slot, owner in enumerate(slab.owners)}


@pytest.mark.parametrize(
    ("rows", "size", "wanted"),
    [(1, 9, 1), (2, 9, 2), (3, 9, 4), (5, 9, 8), (9, 9, 9), (9, 99, 16), (32, 99, 32), (33, 99, 64), (65, 90, 90)],
)
def test_few_numbers_of_rows_are_recorded_and_never_more_than_there_are_slots(
    rows: int, size: int, wanted: int
) -> None:
    assert bucket(rows, size) == wanted


def test_every_number_of_rows_has_room_in_its_bucket() -> None:
    buckets = [bucket(rows, 256) for rows in range(1, 257)]
    assert all(rows <= wide <= 2 * rows for rows, wide in enumerate(buckets, 1))
    assert sorted(set(buckets)) == [1, 2, 4, 8, 16, 32, 64, 96, 128, 160, 192, 224, 256]


def test_rows_are_slots_and_those_of_larger_slabs_come_after() -> None:
    small, large = slab(8, 3, 5, 2, 7), slab(16, 2, 9)
    place = places(small, large)
    decoding = [large.owners[0], small.owners[2], small.owners[0]]
    seating = seat(decoding, lambda member: place[member.id])
    assert seating is not None
    assert seating.tables == ((small, small.moves, 3), (large, large.moves, 1))
    assert seating.tokens == [105, 0, 107, 109]
    assert seating.positions == [5, 2, 7, 9]  # the idle one stands where its owner writes next
    assert seating.order == [3, 2, 0]


def test_slots_without_an_owner_stand_at_the_beginning() -> None:
    few = slab(8, 8, 3, 4, 5)
    place = places(few)
    seating = seat(few.owners, lambda member: place[member.id])
    assert seating is not None
    assert seating.tokens == [103, 104, 105, 0]
    assert seating.positions == [3, 4, 5, 0]


def test_a_full_slot_between_the_others_is_not_written_to() -> None:
    full = slab(8, 2, 8, 3)
    place = places(full)
    assert seat(full.owners[1:], lambda member: place[member.id]) is None


def test_a_slab_whose_tensors_are_others_now_has_another_table() -> None:
    grown = slab(8, 2, 3)
    place = places(grown)
    before = seat(grown.owners, lambda member: place[member.id])
    grown.resize(4)
    after = seat(grown.owners, lambda member: place[member.id])
    assert before is not None
    assert after is not None
    assert before.tables != after.tables


def test_more_slots_take_part_where_that_is_asked_for() -> None:
    own = slab(32, 8, 3, 4)
    seated = seat(own.owners, lambda member: (own, own.owners.index(member)), {own: 8})
    assert seated is not None
    assert seated.tables == ((own, own.moves, 8),)
    assert (seated.rows, seated.order) == (8, [0, 1])
