"""The engine benchmark: what it asks of engines, what it makes of their answers, and a whole run on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from benchmarks.engine import __main__ as command
from benchmarks.engine import figures, models, rounds, runner, table
from benchmarks.engine.engines import Engine, parse
from benchmarks.engine.limits import Limits
from benchmarks.engine.workload import Ask, Case, Words


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a tokenizer of many words."""
    vocabulary = {
        f"\u0120{chr(97 + i % 26)}{chr(97 + i // 26 % 26)}{chr(97 + i // 676)}": 1000 + i for i in range(9000)
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary | {"\u0120the": 5}}}))
    return tmp_path


def plan(folder: Path, *names: str, **changes: object) -> rounds.Plan:
    fields = {"callers": (1, 4), "prompt": 8, "output": 4, "rounds": 2, "threads": 1, "seed": 1} | changes
    return rounds.Plan("m", folder, [parse(name, {}) for name in names], **fields)  # type: ignore[arg-type]


class Recorded:
    """Stands for a runner process: keeps the loads, answers each at once."""

    loads: ClassVar[list[Case]] = []

    def __init__(self, engine: Engine, options: runner.Options) -> None:
        self.ready = {"load_s": 1.0, "load_peak_mb": 1.0, "note": ""}

    def __enter__(self) -> Recorded:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def serve(self, case: Case) -> dict[str, object]:
        self.loads.append(case)
        times = [[float(i) for i in range(ask.tokens)] for ask in case.asks]
        return {"wall_s": 1.0, "began": [0.0] * len(times), "times": times, "peak_mb": 1.0}


def test_no_prompt_of_a_process_begins_like_another(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a prefix cache would make the measured load easier than it says; the warm-up counts."""
    monkeypatch.setattr(rounds, "RunnerProcess", Recorded)
    monkeypatch.setattr(Recorded, "loads", [])
    rounds.measure(plan(folder, "ours", mixed=True), lambda _: None)
    starts = [tuple(ask.prompt[:4]) for case in Recorded.loads for ask in case.asks]
    assert len(starts) == 2 * (1 + 4 + 1 + 4 + 8)
    assert len(set(starts)) == len(starts)


def test_all_engines_get_the_same_loads(folder: Path) -> None:
    both = plan(folder, "ours", "vllm")
    assert rounds.cases(both, 0, both.engines[0]) == rounds.cases(both, 0, both.engines[1])


def test_an_engine_gets_no_load_that_it_cannot_take(folder: Path) -> None:
    one = plan(folder, "generate", callers=(1, 4, 16), mixed=True)
    assert [case.name for case in rounds.cases(one, 0, one.engines[0])] == ["1", "4"]


class Fake(runner.Stepped):
    """Makes one token a step for each request; says that `cached` tokens came from a cache."""

    def __init__(self, cached: int = 0) -> None:
        self.left: dict[int, int] = {}
        self.cached = cached
        self.joined: list[tuple[int, int]] = []  # index, tokens made before
        self.made = 0

    def submit(self, ask: runner.Asked) -> None:
        self.left[ask.index] = ask.tokens
        self.joined.append((ask.index, self.made))

    def step(self) -> list[int]:
        indices = [index for index, left in self.left.items() if left]
        for index in indices:
            self.left[index] -= 1
        self.made += len(indices)
        return indices


def test_a_request_waits_until_the_others_have_made_so_many_tokens() -> None:
    fake = Fake()
    reply = runner._serve(fake, [([1], 10, 0), ([2], 2, 5), ([3], 10, 0)])
    assert fake.joined == [(2, 0), (0, 0), (1, 6)]
    assert [len(times) for times in reply["times"]] == [10, 2, 10]


def test_a_load_that_a_cache_made_easier_is_refused() -> None:
    with pytest.raises(RuntimeError, match="7 tokens of the prompts came from a cache"):
        runner._serve(Fake(cached=7), [([1], 1, 0)])


def test_figures_are_of_the_watched_requests_alone() -> None:
    case = Case("x", (Ask([1], 3), Ask([2], 1)), watched=1)
    found = figures.of(case, {"wall_s": 2.0, "began": [1.0, 0.0], "times": [[1.5, 1.6, 1.9], [9.0]], "peak_mb": 3.0})
    assert list(found.as_dict().values()) == pytest.approx([2.0, 500, 500, 300, 300, 3.0])


def test_the_limit_is_bandwidth_for_one_caller_and_products_for_many() -> None:
    limits = Limits(bytes_per_s=1e9, flops_per_s=1e12)
    alone, many = (limits.tokens_per_s(10**6, 0, 2, callers, 1, 1000) for callers in (1, 10**5))
    assert alone == pytest.approx(500, rel=0.01)
    assert many == pytest.approx(1e12 / 2e6, rel=0.01)


def test_an_engine_for_the_processor_alone_is_left_out_on_a_gpu(capfd: pytest.CaptureFixture[str]) -> None:
    options = command._parser().parse_args(["--engines", "ours,transformers-cb,llama.cpp"])
    assert [engine.name for engine in command._chosen(options, "cuda")] == ["ours", "transformers-cb"]
    assert "llama.cpp:bfloat16 is left out: it does not run on cuda here" in capfd.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--quick", "--device", "cuda"]) == 2
    assert "the limits of the device `cuda` cannot be measured" in capfd.readouterr().err


def test_the_table_names_the_gpu_and_has_no_limit_for_weights_that_it_does_not_take(folder: Path) -> None:
    fields = {"hidden_size": 8, "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 16}
    (folder / "config.json").write_text(json.dumps(fields | {"num_hidden_layers": 2, "vocab_size": 32}))
    limits = Limits(2e12, 5e14, "cuda", "Some GPU", "bfloat16")
    found = table.markdown(plan(folder, "ours", device="cuda"), [], limits)
    assert "Some GPU: 2000.0 GB/s, 500000 GFLOP/s in bfloat16." in found
    assert "bfloat16 weights, bfloat16 products" in found
    assert "int8" not in found


def test_an_unknown_engine_or_precision_is_told() -> None:
    with pytest.raises(ValueError, match="no engine `theirs`"):
        parse("theirs", {})
    with pytest.raises(ValueError, match="no precision `int8`"):
        parse("vllm:int8", {})


@pytest.mark.timeout(600)
def test_a_quick_run_measures_ours_and_leaves_out_what_is_not_there(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    models_dir, told = tmp_path / "models", tmp_path / "told.json"
    arguments = ["--quick", "--models", str(models_dir), "--threads", "1", "--json", str(told)]
    arguments += ["--engines", "ours,transformers-cb:float32,vllm", "--vllm-python", "/nowhere/python"]
    assert command.main(arguments) == 0
    said = capfd.readouterr()
    assert "vllm:bfloat16 is left out" in said.err
    assert "| ours:bfloat16 |" in said.out
    found = json.loads(told.read_text())[0]["engines"]
    assert set(found) == {"ours:bfloat16", "transformers-cb:float32"}
    assert all(set(engine["cases"]) == {"1", "4"} and not engine["failure"] for engine in found.values())
    tiny = models.find("tiny", models_dir)
    assert tiny is not None
    assert Words(tiny, "a").prompt(4) == Words(tiny, "a").prompt(4)
