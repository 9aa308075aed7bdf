"""Every message arrives as it was sent, and no other way of writing objects is used."""

from __future__ import annotations

import pytest

from polyroute.backends.local import messages as m
from polyroute.core.backend import EngineStatus
from polyroute.core.event import FinishReason, TokenLogprob, TopLogprob
from polyroute.core.request import Message, ResponseFormat, Sampling, ToolCall

ENTRY = TokenLogprob("\N{REPLACEMENT CHARACTER}", b"\xe4", -0.5, (TopLogprob("a", b"a", -0.1),))
INPUT = m.Input(
    messages=(Message("assistant", "ok", (ToolCall("1", "f", "{}"),)), Message("tool", "42", tool_call_id="1")),
    tools=(m.ToolSpec("f", "", {"type": "object", "properties": {"x": [1, None, 2.5, True]}}),),
)


@pytest.mark.parametrize(
    "message",
    [
        m.Load("id", "demo", None, "auto", "auto", False, "/tmp"),
        m.Load("id", "demo", "main", "cpu", "bfloat16", True, "/tmp", "int8", 8, 256, 2**40, 7),
        m.Submit(1, INPUT, Sampling(max_tokens=3, seed=-(2**63), temperature=0.1), ("a", "\n")),
        m.Submit(2, m.Input(prompt="x" * 100_000), Sampling(), ()),
        m.Submit(3, m.Input(prompt="x"), Sampling(), (), ResponseFormat("json_schema", "{}")),
        m.Submit(4, m.Input(prompt="x"), Sampling(), (), ResponseFormat("choice", ("a", "b"))),
        m.Cancel(1),
        m.Pause(1),
        m.Resume(1),
        m.Threads(3),
        m.Count(2**40, m.Input(prompt="\N{GRINNING FACE}")),
        m.Stop(),
    ],
)
def test_to_the_worker(message: m.ToWorker) -> None:
    frame = m.encode_frame(message)
    assert int.from_bytes(frame[: m.LENGTH_BYTES], "big") == len(frame) - m.LENGTH_BYTES
    assert m.to_worker_decoder.decode(frame[m.LENGTH_BYTES :]) == message


@pytest.mark.parametrize(
    "message",
    [
        m.Progress("loading", 1, 2),
        m.Ready("abc", 512, True, False, "cpu", "float32"),
        m.Ready("abc-int8", 512, True, False, "cpu", "float32", 64, "int8 weights", "apart", "why", 10**6),
        m.Ready("abc", 512, True, False, "cuda", "bfloat16", graphs=True, why_eager="no"),
        m.LoadFailed("why"),
        m.Eager("why"),
        m.Step((m.Output(1, "t", (ENTRY,)), m.Output(2, finish=m.Finish(FinishReason.STOP, 1, 2, "s", 2**63 - 1)))),
        m.Report(EngineStatus(1, 2, 3, 4, 5, (6, 7), 0.5, (8, 9), 10, 11, 12, 13, 14)),
        m.Rejected(1, "too_long", "prompt", "why"),
        m.Dropped(1, 5),
        m.Counted(1, 7),
    ],
)
def test_from_the_worker(message: m.FromWorker) -> None:
    assert m.from_worker_decoder.decode(m.encode_frame(message)[m.LENGTH_BYTES :]) == message
