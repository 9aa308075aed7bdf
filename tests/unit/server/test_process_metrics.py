"""The process tells of itself."""

from __future__ import annotations

import asyncio
import time
from importlib.metadata import version

from prometheus_client import CollectorRegistry

from polyroute.server.process_metrics import metrics_on, watch_loop


async def test_a_loop_that_is_held_up_is_told_as_late() -> None:
    late: list[float] = []
    watching = asyncio.create_task(watch_loop(late.append))
    try:
        while not late:  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.01)
        time.sleep(0.25)  # noqa: ASYNC251 - what must not happen
        told = len(late)
        while len(late) == told:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)
    finally:
        watching.cancel()
    assert max(late) >= 0.1
    assert min(late) >= 0


def test_what_runs_is_told() -> None:
    registry = CollectorRegistry(auto_describe=True)
    metrics_on(registry)
    assert registry.get_sample_value("polyroute_build_info", {"version": version("polyroute")}) == 1
    assert (registry.get_sample_value("process_resident_memory_bytes") or 0) > 0
