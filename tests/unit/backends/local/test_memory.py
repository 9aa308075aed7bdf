"""The memory budget holds, whoever comes and goes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from polyroute.backends.local.claims import Footprint, Needs, Standing
from polyroute.backends.local.memory import Holding, Memory
from polyroute.core.errors import ModelFailed, Overloaded

MIB = 1 << 20


class House:
    """A tenant whose replicas stand as the test says."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.standing: dict[str, Standing] = {}
        self.used_at: dict[str, float] = {}
        self.held: dict[str, Holding] = {}
        self.evicted: list[tuple[str, str]] = []

    def standings(self) -> Mapping[str, tuple[Standing, float]]:
        return {name: (standing, self.used_at.get(name, 0.0)) for name, standing in self.standing.items()}

    async def evict(self, replica: str, sake: str) -> None:
        if self.standing.pop(replica, None) is None:
            return
        self.evicted.append((replica, sake))
        self.held.pop(replica).release()

    async def take(self, name: str, mib: int, standing: Standing = Standing.IDLE, *, insist: bool = True) -> Holding:
        needs = Needs(mib * MIB, kv_bytes=0)
        self.held[name] = await self.memory.take(self, name, "cpu", needs, insist=insist)
        self.standing[name] = standing
        return self.held[name]


@pytest.fixture
def house() -> House:
    return House(Memory(100 * MIB, wait_s=60))


async def test_what_fits_is_held_until_it_is_released(house: House) -> None:
    first = await house.take("a", 60)
    assert (house.memory.held("cpu"), house.memory.left("cpu")) == (60 * MIB, 40 * MIB)
    first.release()
    first.release()
    assert house.memory.held("cpu") == 0


async def test_what_is_larger_than_the_budget_is_refused_with_both_numbers(house: House) -> None:
    with pytest.raises(ModelFailed, match=r"`a` needs about 101 MiB, more than the memory budget of 100 MiB on cpu"):
        await house.take("a", 101)
    assert house.memory.held("cpu") == 0


async def test_what_is_only_expected_to_be_too_large_is_tried_with_all_there_is(house: House) -> None:
    await house.take("a", 40)
    holding = await house.memory.take(house, "b", "cpu", Needs(500 * MIB, 0, sure=False), insist=True)
    assert house.evicted == [("a", "b")]
    assert house.memory.held("cpu") == 100 * MIB
    await holding.measured(Footprint("cpu", 30 * MIB, 0))
    assert house.memory.left("cpu") == 70 * MIB


async def test_another_budget_counts_from_the_next_on(house: House) -> None:
    await house.take("a", 80)
    house.memory.resize(200 * MIB)
    await house.take("b", 80)
    house.memory.resize(100 * MIB)
    assert house.evicted == []
    assert house.memory.left("cpu") == -60 * MIB


async def test_replicas_spread_over_gpus_of_which_nothing_is_known_yet() -> None:
    memory = Memory(gpus=2)
    house = House(memory)
    placed = []
    for name in "abc":
        device, _ = memory.place("cuda")
        await memory.take(house, name, device, Needs(10, 0), insist=True)
        placed.append(device)
    assert placed == ["cuda:0", "cuda:1", "cuda:0"]


async def test_what_fits_without_that_anybody_leaves_is_known_beforehand(house: House) -> None:
    await house.take("idle", 60)
    fits = {mib: house.memory.fits("b", "cpu", Needs(mib * MIB, kv_bytes=0)) for mib in (40, 41)}
    assert fits == {40: True, 41: False}
    assert house.memory.held("cpu") == 60 * MIB
    with pytest.raises(ModelFailed, match="more than the memory budget"):
        house.memory.fits("b", "cpu", Needs(101 * MIB, kv_bytes=0))
    assert not Memory(gpus=1).fits("b", "cuda:0", Needs(1))  # as nobody knows what that device has


async def test_the_idle_one_used_longest_ago_leaves_for_another(house: House) -> None:
    await house.take("old", 40)
    await house.take("new", 40)
    house.used_at = {"old": 1, "new": 2}
    await house.take("c", 50)
    assert house.evicted == [("old", "c")]
    assert house.memory.held("cpu") == 90 * MIB


async def test_one_in_use_is_waited_for(house: House) -> None:
    await house.take("busy", 80, Standing.BUSY)
    waiting = asyncio.create_task(house.take("b", 50))
    await asyncio.sleep(0)
    assert house.evicted == []
    house.standing["busy"] = Standing.IDLE
    house.memory.changed()
    await waiting
    assert house.evicted == [("busy", "b")]


async def test_the_wait_ends_with_who_holds_what() -> None:
    house = House(Memory(100 * MIB, wait_s=0))
    await house.take("busy", 80, Standing.BUSY)
    with pytest.raises(Overloaded) as caught:
        await house.take("b", 50)
    assert caught.value.message == (
        "`b` needs about 50 MiB on cpu, but 20 MiB of the memory budget of 100 MiB are left; "
        "the rest is held by `busy` 80 MiB (busy)"
    )
    assert caught.value.retry_after_s
    assert house.memory.held("cpu") == 80 * MIB


async def test_those_to_be_kept_are_not_waited_for(house: House) -> None:
    await house.take("kept", 80, Standing.WANTED)
    with pytest.raises(Overloaded, match=r"`kept` 80 MiB \(wanted\)"):
        await house.take("b", 50)


async def test_who_does_not_insist_evicts_nobody(house: House) -> None:
    await house.take("a", 80)
    with pytest.raises(Overloaded):
        await house.take("b", 50, insist=False)
    assert house.evicted == []


async def test_two_who_come_at_once_do_not_count_the_same_memory_twice(house: House) -> None:
    await house.take("old", 90)
    await asyncio.gather(house.take("b", 50), house.take("c", 50))
    assert house.memory.held("cpu") == 100 * MIB
    assert [name for name, _ in house.evicted] == ["old"]


async def test_one_who_leaves_while_waiting_holds_nothing(house: House) -> None:
    await house.take("busy", 80, Standing.BUSY)
    waiting = asyncio.create_task(house.take("b", 50))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert house.memory.held("cpu") == 80 * MIB


async def test_what_was_measured_counts_instead_of_what_was_expected(house: House) -> None:
    holding = await house.take("a", 60)
    await holding.measured(Footprint("cpu", 30 * MIB, 5 * MIB))
    assert house.memory.held("cpu") == 35 * MIB
    await holding.measured(Footprint("cpu", 0, 5 * MIB))  # not measured: it stays
    assert house.memory.held("cpu") == 35 * MIB


async def test_one_that_takes_more_than_expected_has_others_leave(house: House) -> None:
    await house.take("other", 40)
    holding = await house.take("a", 20)
    await holding.measured(Footprint("cpu", 70 * MIB, 0))
    assert house.evicted == [("other", "a")]


async def test_one_that_takes_more_than_the_budget_is_refused_afterwards(house: House) -> None:
    holding = await house.take("a", 20)
    with pytest.raises(ModelFailed, match="`a` takes 110 MiB, more than the memory budget of 100 MiB"):
        await holding.measured(Footprint("cpu", 110 * MIB, 0))


async def test_keys_and_values_get_a_part_of_what_is_left() -> None:
    memory = Memory(1000 * MIB)
    house = House(memory)
    holding = await memory.take(house, "a", "cpu", Needs(200 * MIB), insist=True)
    assert holding.kv_most == 200 * MIB
    assert memory.held("cpu") == 400 * MIB


async def test_a_gpu_is_known_once_a_worker_has_told_and_counts_for_itself() -> None:
    memory = Memory(gpus=2)
    house = House(memory)
    assert memory.budget("cuda:0") is None
    holding = await memory.take(house, "a", "cuda:0", Needs(1 << 40, 0), insist=True)
    assert holding.kv_most is None
    await holding.measured(Footprint("cuda", 10 * MIB, 20 * MIB, device_bytes=100 * MIB))
    assert (memory.budget("cuda:0"), memory.left("cuda:0")) == (90 * MIB, 60 * MIB)
    assert memory.place("cuda") == ("cuda:1", "cuda:1")
    assert memory.place("auto") == ("auto", "cuda:0")
    assert memory.held("cpu") == 0
    assert memory.devices() == ["cpu", "cuda:0"]
