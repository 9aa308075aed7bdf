"""How long a report takes over many records, spread over a month."""

from __future__ import annotations

import random
import time
from functools import partial
from pathlib import Path
from typing import Final

from polyroute.routing.experiments.database import Database, default_url
from polyroute.routing.experiments.findings import Arm
from polyroute.routing.experiments.records import CallRecord
from polyroute.routing.experiments.report import report
from polyroute.routing.experiments.store import add_records
from polyroute.routing.experiments.tally import tally

_MONTH_S: Final = 30 * 86400.0
_BATCH: Final = 4096
_SHARES: Final = (("a", 0.5), ("b", 0.5))


async def report_over(rows: int, folder: Path) -> str:
    """The time of a report, and of one over time, once so many records are there."""
    database = Database(default_url(folder))
    chance = random.Random(1)
    begun = time.perf_counter()
    for first in range(0, rows, _BATCH):
        batch = [_record(number, rows, chance) for number in range(first, min(rows, first + _BATCH))]
        await database.write(partial(add_records, batch=batch))
    filled_s = time.perf_counter() - begun
    took = {}
    for name, points in (("report", 0), ("report over time", 100)):
        begun = time.perf_counter()
        found = await database.read(partial(tally, route="chat", since=0.0, points=points))
        report("chat", [Arm("a", "one", 0.5), Arm("b", "two", 0.5)], "a", found)
        took[name] = time.perf_counter() - begun
    await database.close()
    said = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in took.items())
    return f"report: {rows:,} records in a month, written at {rows / filled_s:,.0f}/s; {said}"


def _record(number: int, rows: int, chance: random.Random) -> CallRecord:
    arm = "ab"[chance.random() < 0.5]
    fault = "PEER_FAILED" if chance.random() < 0.05 else ""
    return CallRecord(
        at=1.7e9 + _MONTH_S * number / rows,
        request_id=f"r{number}",
        route="chat",
        variant=arm,
        model=arm,
        version="1",
        shares=_SHARES,
        sticky_by="request",
        hash_point=chance.random(),
        probability=0.5,
        outcome=fault or "ok",
        fault=fault,
        first_token_s=chance.expovariate(5),
        total_s=chance.expovariate(1),
        completion_tokens=chance.randrange(200),
    )
