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
from benchmarks.router.__main__ import main
from benchmarks.router.cases import CASES, DIRECT, OURS
from benchmarks.router.rounds import Found, Sample
from benchmarks.router.summary import lines, spread
from benchmarks.router.table import markdown

LACKS = [name for name in ("cc", "taskset") if shutil.which(name) is None and os.environ.get("CI") != "true"]
needs_programs = pytest.mark.skipif(
    bool(LACKS), reason=f"there is no {' and no '.join(LACKS)}: install gcc, libc6-dev and util-linux"
)
needs_cores = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="needs two cores: one for servers, one for the load"
)


@needs_programs
@needs_cores
def test_a_run_measures_every_case_over_both_protocols(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "figures.json"
    cores = os.sched_getaffinity(0)
    try:
        assert main(["--quick", "--folder", str(tmp_path), "--json", str(file)]) == 0
    finally:
        os.sched_setaffinity(0, cores)
    told = json.loads(file.read_text())
    assert told["failures"] == []
    measured = {(c["case"], c["protocol"], c["contender"]) for c in told["cells"]}
    expected = {(case.name, case.protocol, name) for case in CASES for name in case.floors}
    expected |= {(case.name, case.protocol, n) for case in CASES for n in case.contenders if n.startswith(OURS)}
    assert expected <= measured
    assert all(one["figures"]["answers"] > 0 for c in told["cells"] for one in c["rounds"])
    assert "### unary miss, 16 words, gRPC, 2 callers" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == [file.name], "nothing is left behind"


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
    assert "| litellm | 1 | 1 - 5.5 | 0.01 |" in markdown(list(summed.values()))


def test_what_streams_cost_is_told_by_the_word_and_beside_the_direct_call() -> None:
    case = next(case for case in CASES if case.name == "first-token" and case.protocol == "http")
    found = Found({(case, 1, OURS): [_sample(1, first_us=700, cpu_us=640)], (case, 1, DIRECT): [_sample(1)]})
    ours, direct = lines(found)
    assert (ours.rate.median, ours.added_first_us, direct.added_first_us) == (64, 600, None)
    assert ours.cpu_us is not None
    assert ours.cpu_us.median == 10
    assert ours.of_floor is None


def test_a_spread_is_of_quartiles_where_there_are_enough_rounds() -> None:
    assert spread([3, 1, 2, 5, 4]).low == 2
    assert (spread([2, 1]).low, spread([2, 1]).high) == (1, 2)
