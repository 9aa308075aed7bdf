"""The router benchmark: a whole run at a small size, what it refuses to count, and its summary."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from benchmarks.rig import programs
from benchmarks.rig.programs import CannotRun, Figures, Target
from benchmarks.rig.workload import Ask
from benchmarks.router import gate, report
from benchmarks.router.__main__ import _command, main
from benchmarks.router.cases import CASES, DIRECT, OURS
from benchmarks.router.footprint import Footprint
from benchmarks.router.machine import this_machine
from benchmarks.router.results import Results
from benchmarks.router.rounds import Found, Sample
from benchmarks.router.summary import lines, spread
from benchmarks.router.table import loads
from benchmarks.router.variants import Variant

LACKS = [name for name in ("cc", "taskset") if shutil.which(name) is None and os.environ.get("CI") != "true"]
needs_programs = pytest.mark.skipif(
    bool(LACKS), reason=f"there is no {' and no '.join(LACKS)}: install gcc, libc6-dev and util-linux"
)
needs_cores = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="needs two cores: one for servers, one for the load"
)


@needs_programs
@needs_cores
def test_a_run_measures_calls_over_both_protocols(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "figures.json"
    cores = os.sched_getaffinity(0)
    names = ["unary-miss", "memory-hit", "disk-hit", "stream-burst"]
    options = ["--quick", "--cases", ",".join(names), "--folder", str(tmp_path)]
    assert main([*options, "--json", str(file)]) == 0
    assert os.sched_getaffinity(0) == cores
    told = json.loads(file.read_text())
    assert told["failures"] == []
    measured = {(c["case"], c["protocol"], c["contender"]) for c in told["cells"]}
    cases = [case for case in CASES if case.name in names]
    expected = {(case.name, case.protocol, name) for case in cases for name in case.floors}
    expected |= {(case.name, case.protocol, n) for case in cases for n in case.contenders if n.startswith(OURS)}
    assert expected <= measured
    assert all(one["figures"]["answers"] > 0 for c in told["cells"] for one in c["rounds"])
    printed = capsys.readouterr().out
    assert "### unary miss, 16 words, gRPC, 2 callers" in printed
    assert main(["--read", str(file)]) == 0
    assert capsys.readouterr().out == printed, "what was saved is what was found"
    assert [path.name for path in tmp_path.iterdir()] == [file.name], "nothing is left behind"


@needs_programs
@needs_cores
def test_a_run_measures_memory_many_models_and_workers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "figures.json"
    options = ["--quick", "--cases", "footprint,models,workers", "--over", "grpc", "--folder", str(tmp_path)]
    assert main([*options, "--json", str(file)]) == 0
    told = json.loads(file.read_text())
    assert told["failures"] == []
    assert {one["name"] for one in told["footprints"]} == {OURS, "grpc pass-through"}
    assert all(one["calls"] >= 10 and one["start_mb"] > 0 for one in told["footprints"])
    assert all(one["stream_kb"] is not None for one in told["footprints"])
    assert [variant["name"] for variant in told["variants"]["many models"]] == ["1", "10"]
    workers = {variant["name"]: variant for variant in told["variants"]["several workers"]}
    assert [*workers] == ["1", "2"]
    assert all(figures["answers"] > 0 for one in workers.values() for figures, _ in one["bare"]["grpc"])
    printed = capsys.readouterr().out
    assert main(["--read", str(file)]) == 0
    assert capsys.readouterr().out == printed, "what was saved is what was found"


@needs_programs
@needs_cores
def test_an_answer_that_lacks_words_is_no_answer(tmp_path: Path) -> None:
    programs.build(tmp_path)
    with programs.upstream(tmp_path) as upstream:
        whole = programs.load(tmp_path, Target("http", upstream.port, Ask(16)), 2, 0.1, 1)
        assert whole.answers > 0
        assert upstream.seen().posts == whole.all
        (tmp_path / "request.body").unlink()
        asked = Ask(16, stream=True)
        asked_for_fewer = Target("http", upstream.port, _Mistaken(asked))  # type: ignore[arg-type]
        with pytest.raises(CannotRun, match="an answer has too few words: 16 of 17"):
            programs.load(tmp_path, asked_for_fewer, 2, 0.1, 2)


class _Mistaken:
    """Expects a word more than it asks for."""

    def __init__(self, ask: Ask) -> None:
        self.words, self.body, self.path = ask.words + 1, ask.body, ask.path


@needs_programs
@needs_cores
def test_held_streams_stay_open_at_the_peer_and_are_left(tmp_path: Path) -> None:
    programs.build(tmp_path)
    with programs.upstream(tmp_path) as upstream:
        forever = Target("http", upstream.port, Ask(64, stream=True, pace_us=600_000_000))
        with programs.held(tmp_path, forever, 10, 10, 1):
            assert upstream.seen().open == 10
        while upstream.seen().open:
            pass
        assert upstream.seen().left == 10


def _sample(per_s: float, first_us: float = 100, cpu_us: float = 50) -> Sample:
    return Sample(Figures(9, 9, per_s, 64 * per_s, 1, *[1.0] * 5, first_us, first_us, 1, 1, 1), cpu_us)


def test_ratios_are_those_of_each_round_and_not_of_the_medians() -> None:
    case = next(case for case in CASES if case.name == "unary-miss" and case.protocol == "http")
    floor = case.floors[0]
    found = Found(
        {
            (case, 32, OURS): [_sample(per_s) for per_s in (50, 500, 10)],
            (case, 32, floor): [_sample(per_s) for per_s in (100, 1000, 20)],
            (case, 32, "litellm"): [_sample(per_s, cpu_us=5000) for per_s in (1, 10, 1)],
            (case, 32, DIRECT): [_sample(10_000, cpu_us=0)],
        }
    )
    summed = {line.name: line for line in lines(found)}
    assert list(summed) == [floor, OURS, "litellm", DIRECT]
    assert summed[OURS].of_floor == 0.5
    assert summed["litellm"].ours_is == 50
    assert summed["litellm"].ours_is_by_cpu == 100
    assert summed[DIRECT].cpu_us is None
    assert "| litellm | 1 | 1 - 5.5 | 0.01 | 0.01 |" in loads(list(summed.values()))


def test_what_streams_cost_is_told_by_the_word_and_beside_the_direct_call() -> None:
    case = next(case for case in CASES if case.name == "first-token" and case.protocol == "http")
    found = Found({(case, 1, OURS): [_sample(1, first_us=700, cpu_us=640)], (case, 1, DIRECT): [_sample(1)]})
    ours, direct = lines(found)
    assert (ours.rate.median, ours.added_first_us, direct.added_first_us) == (64, 600, None)
    assert ours.cpu_us is not None
    assert ours.cpu_us.median == 10
    assert ours.of_floor is None


def test_the_page_says_which_aims_are_met_and_draws_who_was_measured(tmp_path: Path) -> None:
    grpc, http = (next(c for c in CASES if c.name == "unary-miss" and c.protocol == p) for p in ("grpc", "http"))
    samples = {
        (grpc, 32, grpc.floors[0]): [_sample(100)],
        (grpc, 32, OURS): [_sample(79)],
        (http, 32, http.floors[0]): [_sample(100)],
        (http, 32, OURS): [_sample(65)],
    }
    memory = [Footprint(OURS, "grpc", 1.0, 121.0, 10, 121.0, 121.0, 5000, 20.0)]
    workers = [
        Variant(
            name,
            1.0,
            120.0,
            0.01,
            {"grpc": [(_sample(per_s).figures, 500.0) for per_s in rates]},
            {"grpc": [(_sample(bare).figures, 90.0)]},
        )
        for name, rates, bare in (("1", (1000, 10), 2000), ("2", (1600, 18), 3000))
    ]
    found, beside = Found(samples, ["litellm: not\ninstalled"]), {"several workers": workers}
    results = Results(this_machine(), "make bench", 1, 1.0, found, memory, beside)
    page, picture = tmp_path / "page.md", tmp_path / "images" / "picture.svg"
    report.write(results, page, picture)
    said = page.read_text()
    assert "\n## Where the time goes\n" in said
    assert "| gRPC miss, of bare grpc.aio over aiohttp | at least 0.8 | 0.79 | missed |" in said
    assert "| REST miss, of a bare aiohttp proxy | at least 0.65 | 0.65 | met |" in said
    assert "| memory after start | at most 120 MB | 121 MB | missed |" in said
    assert "| an open stream over gRPC | at most 20 KB | 20 KB | met |" in said
    assert "| misses, times LiteLLM's | at least 25 | - | not measured |" in said
    assert "| two workers over gRPC, times one (two bare processes: 1.50) | at least 1.7 | 1.7 | met |" in said
    assert "| 2 | 1.00 | 120 | 1.0% | 809 | 1.70 | 500 | 1.50 | 90 |" in said
    assert "- litellm: not installed" in said
    drawn = picture.read_bytes()
    assert b"http proxy, REST" in drawn
    report.write(results, page, picture)
    assert picture.read_bytes() == drawn, "equal figures give an equal picture"


def test_the_page_names_no_files_of_the_machine_that_it_was_made_on() -> None:
    given = ["--rounds", "3", "--json", "/somewhere/figures.json", "--folder=/elsewhere", "--docs"]
    assert _command(given) == "python -m benchmarks.router --rounds 3 --docs"


def test_the_gate_names_what_is_slower_than_its_bound() -> None:
    def found(cpu_us: float) -> Found:
        cases = [case for case in CASES if (case.name, case.protocol) in gate.BOUNDS]
        samples = {(case, 32, case.floors[0]): [_sample(1, cpu_us=100)] for case in cases}
        return Found(samples | {(case, 32, OURS): [_sample(1, cpu_us=cpu_us)] for case in cases})

    assert gate.broken(lines(found(10))) == []
    said = gate.broken(lines(found(100_000)))
    assert len(said) == len(gate.BOUNDS)
    assert said[0].startswith("unary-miss, grpc: 0.00 of the floor for a second of processor, at least ")
    assert gate.broken([]) == [f"{name}, {protocol}: not measured" for name, protocol in gate.BOUNDS]


def test_a_spread_is_of_quartiles_where_there_are_enough_rounds() -> None:
    assert spread([3, 1, 2, 5, 4]).low == 2
    assert (spread([2, 1]).low, spread([2, 1]).high) == (1, 2)
