"""The benchmark of records runs: calls beside records and copies, and a report over what was written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from benchmarks.records.calls import beside
from benchmarks.records.rows import report_over
from benchmarks.records.server import NONE, SHADOWS
from benchmarks.records.sockets import over_sockets


@pytest.mark.parametrize("kind", ["records", "shadow"])
async def test_calls_are_measured_in_turns(kind: str, tmp_path: Path) -> None:
    said = await beside(kind, tmp_path, rate=50, seconds=0.6)
    written = re.search(r"written (\d+), dropped 0;", said)
    assert written is not None, said
    assert int(written[1]) >= (30 if kind == "records" else 0)


async def test_calls_over_sockets_are_measured_in_pairs(tmp_path: Path) -> None:
    table = (await over_sockets(10, tmp_path)).splitlines()[2:]
    assert [tuple(row.split(" | ")[:2]) for row in table] == [
        (f"| {kind}", protocol) for kind in (NONE, *SHADOWS) for protocol in ("gRPC", "REST")
    ]


async def test_a_report_is_measured(tmp_path: Path) -> None:
    assert (await report_over(500, tmp_path)).startswith("report: 500 records in a month")
