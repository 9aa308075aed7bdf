"""Steps that are played from a recording give what steps give that run, whoever comes and goes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import pytest
import torch

from polyroute.backends.local.worker.engine import Engine
from polyroute.backends.local.worker.forward import attention, fit, graphs, kv_cache, seating
from polyroute.backends.local.worker.forward.attention import NAME
from polyroute.backends.local.worker.forward.batch import Fixed
from polyroute.backends.local.worker.forward.graphs import Graphs
from polyroute.backends.local.worker.forward.slabs import Slab
from tests import tiny
from tests.recording import Recorder, capturing
from tests.stepping import Run, greedy, vocabulary

COUNT = 30
PROMPTS = [
    torch.randint(2, 680, (length,), generator=torch.Generator().manual_seed(length)).tolist()
    for length in (5, 17, 40, 61, 33)
]
PACKED = [name for name, of in tiny.ARCHITECTURES.items() if of.path == "packed"]
WAITING = {"qwen3_moe", "gpt_oss", "deepseek_v3"}
"""Their experts, in float32, ask CUDA for how many tokens each has; of 16 bits, they need not."""

STYLES = ["llama", "mistral", "qwen3_moe", "gemma2", "gemma3", "gpt2", "gpt_oss", "deepseek_v3"]


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seatings are recorded when they first come; slots are of few tokens, so that short sequences outgrow them."""
    monkeypatch.setattr(fit, "Graphs", partial(Graphs, after=0))
    monkeypatch.setattr(fit, "KVCache", partial(kv_cache.KVCache, first_capacity=16))
    monkeypatch.setattr(kv_cache, "_ROOM_AHEAD", 4)


@pytest.fixture
def recorder(at_once: None, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Records here, in CUDA's place."""
    made = Recorder()
    monkeypatch.setattr(fit, "recorder", lambda _: made.record)
    monkeypatch.setattr(attention, "_compiled", lambda *_: None)
    return made


@cache
def references(name: str) -> tuple[Any, dict[int, list[int]]]:
    """The model, and the right answers to `PROMPTS`."""
    model = tiny.build(name, len(vocabulary().tokenizer))
    return model, {id: greedy(model, prompt, COUNT) for id, prompt in enumerate(PROMPTS)}


def start(name: str = "llama", **options: Any) -> Run:
    device = options.pop("device", "cpu")
    model, _ = references(name)
    return Run(copy.deepcopy(model).to(device), **({"max_batch_tokens": 24, "max_sequences": 5} | options))


def graphs_of(run: Run) -> Graphs:
    made: Graphs = run.engine._forward._graphs  # type: ignore[attr-defined]
    return made


def mixed(name: str = "llama", **options: Any) -> Run:
    """Joins in the middle, some that leave, one that waits for its reader between two that do not."""
    run = start(name, **options)
    run.submit(0, PROMPTS[0], COUNT)
    run.step(4)
    run.submit(101, PROMPTS[0][::-1], COUNT)  # the slots move for it, though it leaves before it sits among them
    run.step()
    run.cancel(101)
    run.step(2)
    for id in (1, 2):
        run.submit(id, PROMPTS[id], COUNT)
        run.step(3)
    run.submit(100, PROMPTS[0], COUNT)
    run.step(3)
    run.engine.pause(1)
    run.submit(3, PROMPTS[3], COUNT)
    run.step(7)
    run.cancel(100)
    run.step(3)
    run.engine.resume(1)
    run.submit(4, PROMPTS[4], COUNT)
    run.drain()
    return run


@pytest.mark.parametrize("name", STYLES)
def test_tokens_are_those_of_generate(name: str, recorder: Recorder) -> None:
    run = mixed(name)
    assert run.engine.graphs
    assert graphs_of(run).played > 20
    assert run.tokens == references(name)[1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("name", STYLES)
def test_on_a_gpu_tokens_are_those_of_steps_that_run(name: str, at_once: None) -> None:
    played, run = (mixed(name, device="cuda", cuda_graphs=wanted) for wanted in (True, False))
    if name in WAITING:
        assert "during CUDA graph capture" in played.engine.why_eager
    else:
        assert played.engine.graphs, played.engine.why_eager
        assert graphs_of(played).played > 20
    assert played.tokens == run.tokens


def test_tokens_stay_the_same_where_memory_is_short(recorder: Recorder) -> None:
    memory: Any = start().engine._forward.memory
    run = mixed(kv_cache_bytes=150 * memory._token_bytes)
    assert run.engine.preemptions > 0
    assert graphs_of(run).played > 20
    assert run.tokens == references("llama")[1]


def test_tokens_stay_the_same_where_prefixes_are_found(recorder: Recorder) -> None:
    run = mixed()
    for id, prompt in enumerate(PROMPTS):
        run.submit(200 + id, prompt, COUNT)
    run.drain()
    assert sum(finish.cached_prompt_tokens for finish in run.finished.values()) > 100
    assert all(run.tokens[200 + id] == tokens for id, tokens in references("llama")[1].items())


@pytest.mark.parametrize("sampling", [{"temperature": 1.0, "seed": 7}, {"repetition_penalty": 1.3}])
def test_what_is_sampled_is_the_same_as_from_steps_that_run(sampling: dict[str, Any], recorder: Recorder) -> None:
    found = []
    for wanted in (True, False):
        run = start(cuda_graphs=wanted)
        for id, prompt in enumerate(PROMPTS):
            run.submit(id, prompt, COUNT, **sampling)
        run.drain()
        found.append(run.tokens)
    assert found[0] == found[1]


@pytest.mark.parametrize("name", PACKED)
def test_the_step_waits_for_nothing_and_stays_on_its_device(name: str) -> None:
    """On tensors without memory, asking for a value fails, and so does meeting one of another device."""
    model, meta = tiny.build(name, 100), torch.device("meta")
    model.set_attn_implementation(NAME)
    with torch.inference_mode(), capturing():
        shapes, _ = fit._probe(model)
        model = model.bfloat16().to(meta)
        slabs = [Slab(capacity, shapes, torch.bfloat16, meta) for capacity in (32, 64)]
        for slab in slabs:
            slab.resize(4)
        space = graphs._Space(8, 100, meta)
        Graphs(model, lambda work: work)._step(tuple((slab, slab.moves, 4) for slab in slabs), space)


def test_a_recording_serves_whoever_sits_where_it_was_made(recorder: Recorder) -> None:
    run = start()
    run.submit(0, PROMPTS[3], 3)
    run.drain()
    recorded = recorder.recorded
    for id in (1, 2, 4):
        run.submit(id, PROMPTS[3][:50] + PROMPTS[id][:5], 3)
        run.drain()
    assert recorder.recorded == recorded
    assert recorder.played > recorded


def test_seatings_are_recorded_once_they_have_come_back(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "Graphs", Graphs)
    run = start()
    run.submit(0, PROMPTS[3], 8)
    recorder.recorded = recorder.played = 0
    run.drain()
    assert (run.engine.steps, recorder.recorded, recorder.played) == (3 + 7, 1, 7 - 3)


def few_slots_end(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Five that decode in one slab, of which one then leaves, so that half as many rows would do."""
    monkeypatch.setattr(fit, "Graphs", Graphs)
    monkeypatch.setattr(fit, "KVCache", partial(kv_cache.KVCache, first_capacity=128))
    run = start(max_batch_tokens=512)
    for id in (3, 2, 1, 0):
        run.submit(id, PROMPTS[id], COUNT)
    run.submit(100, PROMPTS[4], 12)
    return run


def test_until_it_is_worth_a_recording_a_seating_is_served_by_a_wider_one(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = few_slots_end(monkeypatch)
    recorder.recorded = recorder.played = 0
    run.drain()
    assert {rows for _, _, rows in next(iter(graphs_of(run)._recorded))} == {8}
    assert (recorder.recorded, recorder.played) == (1, COUNT - 1 - 3)
    assert {id: run.tokens[id] for id in range(4)} == {id: references("llama")[1][id] for id in range(4)}


def test_one_that_stays_is_recorded_in_the_end(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "_AFTER_WIDER", 5)
    run = few_slots_end(monkeypatch)
    recorder.recorded = 0
    run.drain()
    assert [rows for tables in graphs_of(run)._recorded for _, _, rows in tables] == [8, 4]
    assert recorder.recorded == 2
    assert run.tokens[0] == references("llama")[1][0]


def test_one_that_is_far_wider_serves_nobody(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "_WIDER", 1)
    run = few_slots_end(monkeypatch)
    recorder.recorded = 0
    run.drain()
    assert recorder.recorded == 2
    assert run.tokens[0] == references("llama")[1][0]


def test_recordings_of_slots_that_are_no_more_are_let_go(recorder: Recorder) -> None:
    run = mixed()
    made = graphs_of(run)
    assert recorder.recorded > len(made._recorded) > 0
    latest = next(reversed(made._recorded))
    assert all(slab.moves == moves for slab, moves, _ in latest)


def test_only_so_many_recordings_are_kept_and_those_used_last(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "_MOST", 2)
    monkeypatch.setattr(graphs, "_REMEMBERED", 3)
    run = mixed()
    assert len(graphs_of(run)._recorded) <= 2
    assert len(graphs_of(run)._uses) <= 3
    assert run.tokens == references("llama")[1]


def test_the_space_grows_with_the_rows_and_what_it_held_is_recorded_anew(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "_LEAST_ROWS", 1)
    run = mixed()
    space = graphs_of(run)._space
    assert space is not None
    assert space.rows == 8
    assert run.tokens == references("llama")[1]


def test_played_steps_do_not_tell_the_pace_what_steps_cost(recorder: Recorder) -> None:
    run = start()
    noted: list[int] = []
    run.engine._pace.note = lambda decoding, *_: noted.append(decoding)  # type: ignore[method-assign]
    run.submit(0, PROMPTS[1], 10)
    run.drain()
    assert noted == [0]


def failing(recorder: Recorder, kind: type[Exception]) -> None:
    def fail() -> None:
        raise kind("no such thing\nand advice for those who debug")

    recorder.fail = fail


@pytest.mark.parametrize("kind", [RuntimeError, KeyError, torch.OutOfMemoryError])
def test_what_cannot_be_recorded_runs_as_it_is_and_says_why(kind: type[Exception], recorder: Recorder) -> None:
    failing(recorder, kind)
    run = mixed()
    assert run.engine.path == "packed"
    assert not run.engine.graphs
    assert run.engine.why_eager.startswith(f"{kind.__name__}: ")
    assert "\n" not in run.engine.why_eager
    assert run.tokens == references("llama")[1]


def test_a_recording_that_fails_while_serving_is_the_last(recorder: Recorder) -> None:
    run = start()
    run.submit(0, PROMPTS[0], COUNT)
    run.step(3)
    assert run.engine.graphs
    failing(recorder, RuntimeError)
    run.submit(1, PROMPTS[1], COUNT)
    run.drain()
    assert run.engine.why_eager == "RuntimeError: no such thing"
    assert (run.engine.graphs, graphs_of(run)._space, len(graphs_of(run)._recorded)) == (False, None, 0)
    assert run.tokens == {id: references("llama")[1][id] for id in (0, 1)}


def test_a_step_that_waits_for_the_device_cannot_be_recorded(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = attention.attend

    def attend(*inputs: Any) -> torch.Tensor:
        found = original(*inputs)
        found.sum().item()
        return found

    monkeypatch.setattr(attention, "attend", attend)
    assert "not permitted while recording" in start().engine.why_eager


def test_they_can_be_switched_off(recorder: Recorder) -> None:
    engine = start(cuda_graphs=False).engine
    assert (engine.graphs, engine.why_eager) == (False, "`cuda_graphs` is off")
    assert recorder.recorded == 0


def test_where_nothing_records_nothing_is_said() -> None:
    engine = start().engine
    assert (engine.graphs, engine.why_eager) == (False, "")
    assert "graphs" not in repr(engine)


def with_table(change: Callable[[Slab, int, int], tuple[Slab, int, int]]) -> Callable[[pytest.MonkeyPatch], None]:
    original = seating.seat

    def seat(*given: Any) -> Any:
        seated = original(*given)
        if seated is None:
            return None
        tables = tuple(change(*table) for table in seated.tables)
        return seating.Seating(tables, seated.tokens, seated.positions, seated.order)

    return lambda monkeypatch: monkeypatch.setattr(graphs, "seat", seat)


def unordered(monkeypatch: pytest.MonkeyPatch) -> None:
    def seat(*given: Any) -> Any:
        seated = seating.seat(*given)
        return seated and seating.Seating(seated.tables, seated.tokens, seated.positions, sorted(seated.order))

    monkeypatch.setattr(graphs, "seat", seat)


def idle_at(position: int) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda monkeypatch: monkeypatch.setattr(seating, "_idle", lambda *_: (0, position))


def sees(by: int) -> Callable[[pytest.MonkeyPatch], None]:
    original = Fixed.mask

    def mask(self: Fixed, window: int | None, like: torch.Tensor, heads: int) -> torch.Tensor:
        self._masks.clear()
        shifted = Fixed(self.slab, self.start, self.slots, self.past + by)
        return original(shifted, window, like, heads)

    return lambda monkeypatch: monkeypatch.setattr(Fixed, "mask", mask)


def stale_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    original = graphs._Space.fill

    def fill(self: Any, seated: Any) -> None:
        if not self.tokens.any():
            original(self, seated)

    monkeypatch.setattr(graphs._Space, "fill", fill)


FAULTS: list[tuple[str, Callable[[pytest.MonkeyPatch], None]]] = [
    ("slots that have moved are looked for where they were", with_table(lambda slab, _, rows: (slab, 0, rows))),
    ("rows are taken in another order than sequences have", unordered),
    ("idle rows write where something stands", idle_at(2)),
    ("an answer sees one too many", sees(1)),
    ("an answer sees one too few", sees(-1)),
    ("inputs stay what they were", stale_inputs),
]

BEYOND_THE_TRIAL = {"slots that have moved are looked for where they were", "idle rows write where something stands"}
"""Faults of ours alone, which no device could have."""


@pytest.mark.parametrize(("fault", "plant"), FAULTS)
def test_equality_is_not_blind(
    fault: str, plant: Callable[[pytest.MonkeyPatch], None], recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "_why_eager", lambda *_: "")
    plant(monkeypatch)
    assert mixed().tokens != references("llama")[1], fault


@pytest.mark.parametrize(("fault", "plant"), [fault for fault in FAULTS if fault[0] not in BEYOND_THE_TRIAL])
def test_the_trial_at_load_finds_a_graph_that_is_wrong(
    fault: str, plant: Callable[[pytest.MonkeyPatch], None], recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    engine: Engine = start().engine
    assert engine.path == "packed"
    assert "played from a graph, it answers differently" in engine.why_eager, fault
