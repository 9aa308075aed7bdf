"""Cores are shared by the workers that are busy, and counted as the container counts them."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from polyroute.backends.local.cores import Cores, Seat, step_threads, usable_cores

HERE = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def seats(cores: Cores, count: int) -> tuple[list[Seat], list[list[int]]]:
    told: list[list[int]] = [[] for _ in range(count)]
    return [cores.seat(told[i].append) for i in range(count)], told


async def turn() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_busy_workers_share_evenly_and_hear_of_changes_alone() -> None:
    (one, two, three), told = seats(Cores(7, settle_s=0), 3)
    one.claim("load")
    one.claim("answers")
    assert (one.threads, told[0]) == (7, [])
    two.claim("answers")
    assert (one.threads, two.threads) == (4, 3)
    three.claim("answers")
    assert [seat.threads for seat in (one, two, three)] == [3, 2, 2]
    one.release("load")
    two.release("answers")
    await turn()
    assert (one.threads, three.threads) == (4, 3)  # one has another claim still
    one.release("answers")
    await turn()
    assert three.threads == 7
    assert told == [[4, 3, 4], [3, 2], [2, 3, 7]]


async def test_each_busy_worker_has_a_thread_however_many_there_are() -> None:
    taken, _ = seats(Cores(2), 5)
    for seat in taken:
        seat.claim("answers")
    assert [seat.threads for seat in taken] == [1] * 5


async def test_a_short_rest_changes_nothing() -> None:
    (one, two), told = seats(Cores(4, settle_s=3600), 2)
    one.claim("answers")
    two.claim("answers")
    for _ in range(100):
        two.release("answers")
        two.claim("answers")
    two.release("answers")
    await turn()
    assert told == [[2], [2]]
    two.leave()  # a worker that is gone needs nothing, at once
    assert told == [[2, 4], [2]]


def test_cores_are_those_of_the_affinity() -> None:
    assert usable_cores(Path("/nowhere"), Path("/nowhere/cgroup")) == HERE


@pytest.mark.parametrize(
    ("outer", "inner", "cores"),
    [
        ("max 100000", "max 100000", HERE),
        ("max 100000", "100000 100000", 1),
        ("150000 100000", "max 100000", 1),  # a group above has the quota
        ("50000 100000", None, 1),
        ("99900000 100000", "nonsense", HERE),
    ],
)
def test_a_containers_quota_counts(tmp_path: Path, outer: str, inner: str | None, cores: int) -> None:
    group = tmp_path / "pod" / "container"
    group.mkdir(parents=True)
    (tmp_path / "pod" / "cpu.max").write_text(outer + "\n")
    if inner is not None:
        (group / "cpu.max").write_text(inner + "\n")
    own = tmp_path / "cgroup"
    own.write_text("1:name=systemd:/else\n0::/pod/container\n")
    assert usable_cores(tmp_path, own) == cores


def test_a_core_is_left_for_the_router_and_fewer_threads_may_be_asked_for() -> None:
    assert step_threads({}) == max(1, usable_cores() - 1)
    assert step_threads({"OMP_NUM_THREADS": "1"}) == 1
    assert step_threads({"OMP_NUM_THREADS": "4096"}) == step_threads({})
    assert step_threads({"OMP_NUM_THREADS": "0"}) == step_threads({"OMP_NUM_THREADS": "4,2"}) == step_threads({})
