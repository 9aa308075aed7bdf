"""A burst begins at once, the rest in line."""

from __future__ import annotations

from polyroute.backends.remote.pace import Pace


async def test_a_burst_then_one_after_the_other() -> None:
    now, waits = [100.0], []

    async def sleep(wait_s: float) -> None:
        waits.append(wait_s)

    pace = Pace(3, 10, clock=lambda: now[0], sleep=sleep)
    for _ in range(5):
        await pace.turn()
    assert [round(wait, 6) for wait in waits] == [0.1, 0.2]
    now[0] += 0.2
    await pace.turn()
    assert round(waits[-1], 6) == 0.1
    now[0] += 60  # rest does not add up beyond the burst
    waits.clear()
    for _ in range(4):
        await pace.turn()
    assert [round(wait, 6) for wait in waits] == [0.1]
