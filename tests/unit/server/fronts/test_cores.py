"""A front has a core to itself where there is exactly one for each."""

from __future__ import annotations

import os
import sys
import threading

import pytest

from polyroute.server.fronts.cores import keep_to, own_core, usable


def test_as_many_fronts_as_cores_have_one_each() -> None:
    assert [own_core(number, 3, {7, 2, 4}) for number in range(3)] == [2, 4, 7]


@pytest.mark.parametrize("cores", [set(), {0}, {0, 1, 2}])
def test_others_run_where_the_system_has_room(cores: set[int]) -> None:
    assert own_core(1, 2, cores) is None


@pytest.mark.skipif(sys.platform != "linux", reason="no other system is told which cores to use")
def test_what_is_started_afterwards_stays_on_that_core_too() -> None:
    core, seen = max(usable()), []

    def started() -> None:
        keep_to(core)
        keep_to(4095)  # there is none: left as it is
        thread = threading.Thread(target=lambda: seen.append(os.sched_getaffinity(0)))
        thread.start()
        thread.join()

    alone = threading.Thread(target=started)  # so that this test's own thread stays free
    alone.start()
    alone.join()
    assert seen == [{core}]
