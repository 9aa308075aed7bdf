"""The routing simulation: its trace, its replicas, and a small run of the whole command."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from benchmarks.routing import __main__ as command
from benchmarks.routing.engine import Engine, PrefixCache, Shape, Work
from benchmarks.routing.figures import Figures
from benchmarks.routing.policies import POLICIES
from benchmarks.routing.simulation import Tally
from benchmarks.routing.trace import CHARS_PER_TOKEN, Arrival, Workload, arrivals

from polyroute.backends.pool.prefixes import BLOCK_CHARS, path_of
from polyroute.core.call import Call
from polyroute.core.request import Request

SHAPE = Shape(step_s=0.01, sequence_s=0.0, token_s=0.001, chunk=100, max_sequences=2, cache_tokens=1000)


def work(prompt: int, answer: int, number: int = 0) -> Work:
    call = Call(Request(prompt="x"), "r")
    return Work(Arrival(0.0, call, ((number, prompt),), prompt, (number + 1, answer)))


def ends(engine: Engine) -> list[tuple[float, str, Work]]:
    """Every answer that begins or is complete, with its time."""
    seen = []
    while (due := engine.due) is not None:
        progress = engine.advance()
        seen += [(round(due, 6), "began", one) for one in progress.began]
        seen += [(round(due, 6), "done", one) for one in progress.done]
    return seen


def test_an_answer_begins_once_its_prompt_is_computed_and_then_takes_a_step_a_token() -> None:
    engine, asked = Engine(SHAPE), work(prompt=250, answer=6)
    engine.add(asked, 1.0)
    assert ends(engine) == [(1.28, "began", asked), (1.33, "done", asked)]  # 3 steps and 250 tokens; then 5 steps


def test_a_request_joins_at_the_end_of_a_step() -> None:
    engine, first, second = Engine(SHAPE), work(100, 31), work(100, 2, number=2)
    engine.add(first, 0.0)  # begins at 0.11
    engine.advance()
    engine.add(second, 0.115)
    assert ends(engine) == [(0.23, "began", second), (0.24, "done", second), (0.51, "done", first)]


def test_no_more_run_together_than_there_is_room_for() -> None:
    engine, works = Engine(SHAPE), [work(100, 10, number=2 * i) for i in range(3)]
    for one in works:
        engine.add(one, 0.0)
    seen = ends(engine)
    assert [one for _, what, one in seen if what == "began"] == works
    assert seen.index((seen[2][0], "done", works[0])) < [entry[2] for entry in seen].index(works[2])
    assert engine.works == []


def test_a_prompt_that_is_cached_costs_one_token() -> None:
    engine = Engine(SHAPE)
    engine.add(work(200, 1), 0.0)
    ends(engine)
    again = work(200, 1)
    engine.add(again, 5.0)
    assert ends(engine)[0] == (5.011, "began", again)
    assert again.hit_tokens == 199


def test_a_cache_knows_unbroken_beginnings_and_drops_the_oldest_ends() -> None:
    cache = PrefixCache(100)
    cache.add(((1, 40), (2, 30)))
    assert cache.known(((1, 40), (2, 30), (3, 5))) == 70
    assert cache.known(((9, 40), (2, 30))) == 0
    cache.add(((1, 40), (4, 50)))
    assert cache.known(((1, 40), (2, 30))) == 40
    assert cache.known(((1, 40), (4, 50))) == 90


def test_a_trace_is_the_same_for_the_same_seed() -> None:
    first, again, other = (list(arrivals(Workload(), 300, seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_trace_arrives_in_order_at_about_its_rate() -> None:
    times = [arrival.at for arrival in arrivals(Workload(rate=50), 20_000, 1)]
    assert all(one < other for one, other in pairwise(times))
    assert 40 < len(times) / times[-1] < 60


def test_prompts_share_in_text_what_they_share_in_parts() -> None:
    seen = list(arrivals(Workload(rate=2, systems=3), 400, 1))
    for one, other in pairwise(seen):
        alike = 0
        for part, its in zip(one.parts, other.parts, strict=False):
            if part != its:
                break
            alike += part[1]
        blocks = sum(a == b for a, b in zip(path_of(one.call.request), path_of(other.call.request), strict=False))
        assert abs(blocks - min(16, alike * CHARS_PER_TOKEN // BLOCK_CHARS)) <= 1
    assert any(len(arrival.parts) > 4 for arrival in seen)


def test_figures_count_what_came_in_time() -> None:
    tally = Tally(arrived=5, failed=1, prompt_tokens=10, hit_tokens=4)
    tally.first_token_s.extend([0.1, 0.2, 0.3, 9.0])
    tally.imbalance.extend([1.0, 2.0])
    assert Figures.of(tally, 10.0, 2.0) == Figures(0.3, 0.6, 1, 0.3, 9.0, 1.5, 0.4)


def test_the_command_compares_all_policies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Long enough for a replica to die and to come back; the figures follow from the seed alone."""
    arguments = ["--requests", "2500", "--rate", "8", "--replicas", "3", "--json", str(tmp_path / "figures.json")]
    assert command.main(arguments) == 0
    said = capsys.readouterr().out
    assert said.count("\n| ") == 1 + len(POLICIES)
    figures = {name: Figures(**row) for name, row in json.loads((tmp_path / "figures.json").read_text()).items()}
    assert list(figures) == list(POLICIES)
    assert figures["prefix"].hit_rate > figures["least_outstanding"].hit_rate
    assert all(row.failed < 25 and row.in_time > 0.5 for row in figures.values())
    assert command.main([*arguments, "--policy", "prefix"]) == 0
    again = json.loads((tmp_path / "figures.json").read_text())
    assert Figures(**again["prefix"]) == figures["prefix"]


@pytest.mark.parametrize("arguments", [["--requests", "0"], ["--replicas", "1"], ["--policy", "magic"]])
def test_a_command_that_makes_no_sense_is_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main(arguments)
