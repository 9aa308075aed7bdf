"""Memory of keys and values: what grows and moves keeps its contents, and the cap holds for all of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from polyroute.backends.local.worker.forward.kv_cache import KVCache
from polyroute.backends.local.worker.forward.prefixes import LEAST_TOKENS
from polyroute.backends.local.worker.forward.slabs import LayerShape
from tests.stepping import audit

SHAPES = [LayerShape(1, 2, 1), LayerShape(2, 1, 1)]
TOKEN_BYTES = (3 + 4) * 4


class Holder:
    """A sequence whose tokens are told by a stream and their place."""

    def __init__(self, id: int, length: int, *, room: int = 0, stream: int = 0) -> None:
        self.id = id
        self.arrival = 0
        self.processed = 0
        self.cached = 0
        self.length = length
        self.room = room
        self.stream = stream

    @property
    def prompt(self) -> list[int]:
        return self.tokens(0, self.length)

    def tokens(self, start: int, stop: int) -> list[int]:
        return [1000 * self.stream + place for place in range(start, stop)]


def cache(tokens: int, first: int = 16) -> KVCache:
    return KVCache(SHAPES, torch.float32, torch.device("cpu"), limit_bytes=tokens * TOKEN_BYTES, first_capacity=first)


def fill(memory: KVCache, holder: Any, upto: int) -> None:
    """As a forward pass would: writes its tokens' keys and values, from where it stands."""
    slab, slot = memory.place(holder)
    marks = torch.tensor([float(token) for token in holder.tokens(holder.processed, upto)])
    for keys in slab.keys:
        keys[slot, :, :, holder.processed : upto] = marks
    for values in slab.values:
        values[slot, :, holder.processed : upto] = marks[:, None]
    holder.processed = upto


def intact(memory: KVCache, holder: Any) -> bool:
    slab, slot = memory.place(holder)
    n = holder.processed
    wanted = torch.tensor([float(token) for token in holder.tokens(0, n)])
    return all(bool((keys[slot, :, :, :n] == wanted).all()) for keys in slab.keys) and all(
        bool((values[slot, :, :n] == wanted[:, None]).all()) for values in slab.values
    )


def joined(memory: KVCache, id: int, length: int, **options: Any) -> Any:
    holder: Any = Holder(id, length, **options)
    assert memory.reserve(holder, length)
    memory.restore(holder)
    fill(memory, holder, length)
    audit(memory)
    return holder


def test_a_sequence_that_outgrows_its_slot_moves_with_all_that_it_has() -> None:
    memory = cache(1000)
    holders = [joined(memory, id, 14, stream=id) for id in range(3)]
    capacities = []
    for length in range(15, 120):
        for holder in holders:
            assert memory.reserve(holder, length)
            fill(memory, holder, length)
            assert intact(memory, holder)
        audit(memory)
        capacities.append(memory.place(holders[0])[0].capacity)
    assert sorted(set(capacities)) == [16, 32, 64, 128]
    assert all(intact(memory, holder) for holder in holders)


@pytest.mark.parametrize("leaving", [0, 1, 2, 3])
def test_who_leaves_makes_the_last_one_move_and_all_stay_intact(leaving: int) -> None:
    memory = cache(400)
    holders = [joined(memory, id, 10 + id, stream=id) for id in range(4)]
    memory.release(holders.pop(leaving))
    audit(memory)
    assert all(intact(memory, holder) for holder in holders)
    assert sorted(memory.place(holder)[1] for holder in holders) == [0, 1, 2]
    memory.release(Holder(99, 3))  # a stranger
    assert len(memory._places) == 3


def test_a_new_one_gets_room_for_what_it_may_generate_where_there_is_any() -> None:
    memory = cache(100)
    assert memory.place(joined(memory, 1, 10, room=30))[0].capacity == 64
    assert memory.place(joined(memory, 2, 10, room=30))[0].capacity == 16  # 64 more do not fit
    assert memory.place(joined(memory, 3, 10, room=3))[0].capacity == 16


@pytest.mark.parametrize("tokens", [1, 2, 15, 16, 17, 63, 64, 65, 100, 128, 129, 1000])
def test_the_longest_sequence_that_is_promised_fits_alone_and_none_longer(tokens: int) -> None:
    memory = cache(tokens)
    most = memory.capacity_tokens
    assert tokens - 64 < most <= tokens
    holder: Any = Holder(1, most)
    assert memory.reserve(holder, most)
    audit(memory)
    memory.release(holder)
    assert not cache(tokens).reserve(Holder(2, most + 1), most + 1)


def test_a_sequence_that_grows_to_the_longest_fits_when_it_starts_anew() -> None:
    """While it moves, it would need both slots: so it gives its own back, as the scheduler has it do."""
    memory = cache(192)
    holder = joined(memory, 1, 100)
    assert memory.place(holder)[0].capacity == 128
    assert not memory.reserve(holder, 129)
    assert intact(memory, holder)
    memory.release(holder)
    holder.processed = 0
    assert memory.reserve(holder, 129)
    assert memory.reserve(holder, 192)
    audit(memory)


def state(memory: KVCache) -> Any:
    slabs = {c: (slab.size, [o.id for o in slab.owners]) for c, slab in memory._slabs.items()}
    places = {id: (slab.capacity, slot) for id, (slab, slot) in memory._places.items()}
    return slabs, places, memory.prefixes.tokens, memory.used_bytes


def test_a_refusal_changes_nothing() -> None:
    memory = cache(64)
    kept = joined(memory, 0, 20, stream=5)
    memory.keep(kept)
    memory.release(kept)
    holders = [joined(memory, id, 16, stream=id) for id in (1, 2)]
    before = state(memory)
    assert not memory.reserve(holders[0], 40)
    assert not memory.reserve(Holder(9, 50), 50)
    assert state(memory) == before
    assert all(intact(memory, holder) for holder in holders)
    audit(memory)


def test_slots_that_nobody_has_and_prefixes_make_room_for_sequences() -> None:
    memory = cache(128)
    for id in range(4):
        memory.keep(joined(memory, id, 16, stream=id))
    for id in range(4):
        memory.release(Holder(id, 16))
    assert memory.used_bytes == 128 * TOKEN_BYTES
    holder = joined(memory, 9, 100, stream=9)
    assert memory.used_bytes == 128 * TOKEN_BYTES
    assert intact(memory, holder)


def test_a_prefix_is_restored_where_it_was_but_for_one_token_to_compute() -> None:
    memory = cache(400)
    first = joined(memory, 1, 40)
    memory.keep(first)
    memory.release(first)
    for length, restored in ((40, 39), (60, 40), (30, 29), (LEAST_TOKENS, 0), (LEAST_TOKENS + 1, LEAST_TOKENS)):
        holder: Any = Holder(2, length)
        assert memory.reserve(holder, length)
        memory.restore(holder)
        assert (holder.processed, holder.cached) == (restored, restored)
        assert intact(memory, holder)
        memory.release(holder)


def test_a_prefix_that_others_built_upon_is_restored_in_pieces() -> None:
    memory = cache(1000)

    class Fork(Holder):
        def tokens(self, start: int, stop: int) -> list[int]:
            return [place if place < 24 else 1000 * self.stream + place for place in range(start, stop)]

    for id in (1, 2, 3):
        fork: Any = Fork(id, 60, stream=id)
        assert memory.reserve(fork, 60)
        memory.restore(fork)
        assert fork.cached == (0 if id == 1 else 24)
        fill(memory, fork, 60)
        assert intact(memory, fork)
        memory.keep(fork)
        audit(memory)
    assert memory.prefixes.tokens == 24 + 3 * 36
    again: Any = Fork(4, 70, stream=2)
    assert memory.reserve(again, 70)
    memory.restore(again)
    assert again.processed == 60
    assert intact(memory, again)


def test_prefixes_never_take_memory_beyond_the_cap_and_the_oldest_go_first() -> None:
    memory = cache(192)
    for id in range(8):
        holder = joined(memory, id, 40, stream=id)
        memory.keep(holder)
        audit(memory)
        memory.release(holder)
    known = [memory.prefixes.known(Holder(0, 40, stream=id).tokens(0, 40)) for id in range(8)]
    assert known == [0] * 5 + [40] * 3  # beside a slot of 64


def test_short_pieces_are_not_kept() -> None:
    memory = cache(192)
    memory.keep(joined(memory, 1, LEAST_TOKENS - 1, stream=1))
    assert memory.prefixes.tokens == 0
    memory.keep(joined(memory, 2, LEAST_TOKENS, stream=2))
    assert memory.prefixes.tokens == LEAST_TOKENS


def test_where_sequences_take_everything_nothing_is_kept() -> None:
    memory = cache(64)
    holder = joined(memory, 1, 60)
    memory.keep(holder)
    assert memory.prefixes.tokens == 0
    assert intact(memory, holder)


def on_a_gpu(tokens: int, first: int) -> KVCache:
    """As on a device that is not the CPU, without its memory."""
    return KVCache(SHAPES, torch.float32, torch.device("meta"), limit_bytes=tokens * TOKEN_BYTES, first_capacity=first)


def test_on_a_gpu_the_first_slots_are_taken_several_at_a_time_but_no_long_ones() -> None:
    memory = on_a_gpu(tokens=1024, first=8)
    sizes = []
    for id, length in enumerate((8, 16, 64, 256)):
        holder: Any = Holder(id, length)
        assert memory.reserve(holder, length)
        sizes.append(memory.place(holder)[0].size)
    assert sizes == [8, 4, 1, 1]  # a sixteenth of the cap at most, so that prefixes and others have room


class Device:
    """Has memory for `left` more tensors of slots."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 1000
        make = torch.Tensor.new_zeros

        def new_zeros(of: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
            if shape[0] and self.left <= 0:
                raise torch.OutOfMemoryError("no memory")
            self.left -= 1
            return make(of, shape)

        monkeypatch.setattr(torch.Tensor, "new_zeros", new_zeros)


@pytest.mark.parametrize("left", range(4))
def test_a_device_with_less_than_the_cap_refuses_and_what_stands_is_intact(
    left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, device = cache(1000), Device(monkeypatch)
    holders = [joined(memory, id, 14, stream=id) for id in range(2)]
    memory.keep(holders[0])
    slab, moves = memory.place(holders[0])[0], memory.place(holders[0])[0].moves
    device.left = left
    assert not memory.reserve(Holder(2, 14), 14)  # type: ignore[arg-type]
    assert slab.moves > moves  # some of its tensors are others now
    assert memory.prefixes.tokens == 0
    assert all(intact(memory, holder) for holder in holders)
    device.left = 1000
    joined(memory, 3, 14, stream=3)
    assert all(intact(memory, holder) for holder in holders)


def test_a_device_without_memory_for_one_alone_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    memory, device = cache(1000), Device(monkeypatch)
    device.left = 0
    with pytest.raises(torch.OutOfMemoryError):
        memory.reserve(Holder(0, 14), 14)  # type: ignore[arg-type]


def test_what_the_device_has_no_memory_for_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = cache(1000, first=64)
    holder = joined(memory, 0, 40)

    def clone(_: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("no memory")

    with monkeypatch.context() as patched:
        patched.setattr(torch.Tensor, "clone", clone)
        memory.keep(holder)
    assert memory.prefixes.tokens == 0
    memory.keep(holder)
    assert memory.prefixes.tokens == 40
