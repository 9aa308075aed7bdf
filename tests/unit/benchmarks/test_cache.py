"""The cache benchmark: a whole run at a small size, and its table."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from benchmarks.cache import wordings
from benchmarks.cache.__main__ import main
from benchmarks.cache.table import markdown
from benchmarks.rig.programs import Figures

LACKS = [name for name in ("cc", "taskset") if shutil.which(name) is None and os.environ.get("CI") != "true"]


@pytest.mark.skipif(bool(LACKS), reason=f"there is no {' and no '.join(LACKS)}: install gcc, libc6-dev and util-linux")
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores: one for servers, one for the load")
def test_a_run_measures_everything_that_it_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "figures.json"
    options = ["--quick", "--tiers", "memory,disk", "--folder", str(tmp_path), "--json", str(file)]
    assert main([*options, "--peers", str(tmp_path / "none")]) == 0
    figures = json.loads(file.read_text())["figures"]
    measured = {(f["contender"], f["protocol"]) for f in figures}
    for name in ("memory, 100 entries", "disk, 100 entries", "no cache, fast peer"):
        assert {(name, "grpc"), (name, "http")} <= measured
    assert {("grpc echo", "grpc"), ("grpc echo of messages", "grpc"), ("http echo", "http")} <= measured
    assert all(one["per_s"] > 0 for f in figures for one in f["rounds"])
    assert "| memory, 100 entries | grpc |" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == [file.name], "nothing is left behind"


def test_the_table_compares_with_the_echo_of_the_same_protocol() -> None:
    def took(per_s: float) -> list[Figures]:
        return [Figures(10, 10, rate, *[1.0] * 12) for rate in (per_s, 2 * per_s, per_s / 2)]

    found = {
        ("grpc echo", "grpc", 1): took(200),
        ("memory", "grpc", 1): took(100),
        ("http echo", "http", 1): took(400),
        ("memory", "http", 1): took(100),
    }
    rows = markdown(found, [1]).splitlines()
    assert [row.split(" | ")[-1] for row in rows[2:]] == ["1.00 |", "2.00 |", "1.00 |", "4.00 |"]


def test_the_table_of_wordings_counts_pairs_before_and_after_the_rules() -> None:
    found = {kind: [0.9] * len(pairs) for kind, pairs in wordings.PAIRS.items()}
    rows = {row.split(" | ")[0]: row.split(" | ") for row in wordings.table(found).splitlines()[2:]}
    assert rows["| turned round (10)"][1:6] == ["10, 0", "10, 0", "10, 0", "0, 0", "0, 0"]
    assert rows["| opposite words (8)"][1] == "8, 8"
