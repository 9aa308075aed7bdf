"""What an engine says of itself, step by step."""

from __future__ import annotations

from typing import Any

import pytest

from polyroute.core.telemetry import ENGINE_BATCH, ENGINE_STEP
from tests import tiny
from tests.stepping import Run, vocabulary

PROMPT = list(range(2, 42))


@pytest.fixture
def model() -> Any:
    return tiny.build_model("llama", len(vocabulary().tokenizer))


def test_each_step_and_token_is_counted(model: Any) -> None:
    run = Run(model, max_batch_tokens=24, max_sequences=2)
    for id in (1, 2, 3):
        run.submit(id, [*PROMPT, id], 4)
    before = run.engine.status()
    assert (before.running, before.waiting, before.paused, before.output_tokens) == (0, 3, 0, 0)
    run.step(3)
    run.engine.pause(1)
    during = run.engine.status()
    assert (during.running, during.waiting, during.paused) == (1, 1, 1)
    assert 0 < during.kv_used_bytes <= during.kv_limit_bytes
    run.engine.resume(1)
    run.drain()
    after = run.engine.status()
    assert (after.running, after.waiting, after.paused, after.preemptions) == (0, 0, 0, 0)
    assert after.output_tokens == 3 * 4
    assert after.computed_tokens + after.reused_tokens == 3 * len([*PROMPT, 0])
    assert after.reused_tokens > 0  # the third finds what the first has read
    assert sum(after.step_sizes) == sum(after.batch_sizes) == run.engine.steps
    assert len(after.step_sizes) == len(ENGINE_STEP.buckets) + 1
    assert len(after.batch_sizes) == len(ENGINE_BATCH.buckets) + 1
    assert after.batched == after.batch_sizes[0] + 2 * after.batch_sizes[1]


def test_what_an_answer_that_begins_anew_finds_again_is_no_gain(model: Any) -> None:
    """Reused tokens are those of other prompts; an answer that had to give back its memory finds its own."""
    run = Run(model, max_sequences=1)
    run.submit(1, PROMPT, 20)
    run.step(6)
    run.engine.pause(1)  # gives its place to the next
    run.submit(2, PROMPT[::-1], 2)
    run.step(4)
    run.engine.resume(1)
    run.drain()
    after = run.engine.status()
    assert after.preemptions == 1
    assert after.reused_tokens == 0
    assert after.output_tokens == 22
