"""Log probabilities come for the rows that asked, as many as asked for, whatever the others want."""

from __future__ import annotations

import pytest
import torch

from polyroute.backends.local.worker.detokenize import Vocabulary
from polyroute.backends.local.worker.logprobs import Chosen, LogprobTrail, report
from tests import tiny


def test_each_row_gets_what_it_asked_for() -> None:
    logits = torch.randn((5, 300), generator=torch.Generator().manual_seed(0)) * 4
    logs = logits.double().log_softmax(dim=-1)
    entries = report(logits, [3, 4, 5, -1, 7], [2, None, 0, 3, 300])
    assert entries[1] is None
    assert entries[3] is None
    for row, token, count in ((0, 3, 2), (2, 5, 0), (4, 7, 300)):
        entry = entries[row]
        assert entry is not None
        assert entry.logprob == pytest.approx(float(logs[row, token]), abs=1e-5)
        assert [i for i, _ in entry.top] == logs[row].topk(count).indices.tolist()
        assert [value for _, value in entry.top] == pytest.approx(logs[row].topk(count).values.tolist(), abs=1e-5)


def test_more_alternatives_than_tokens_are_all_tokens() -> None:
    entry = report(torch.zeros((1, 4)), [0], [20])[0]
    assert entry is not None
    assert sorted(i for i, _ in entry.top) == [0, 1, 2, 3]


def test_rows_that_did_not_ask_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "log_softmax", None)
    assert report(torch.zeros((2, 4)), [0, 1], [None, None]) == [None, None]


def test_entries_wait_until_the_text_of_their_token_is_shown() -> None:
    vocabulary = Vocabulary(tiny.byte_level_tokenizer())
    trail = LogprobTrail(vocabulary)
    part = next(token for token in range(2, 300) if vocabulary.token_bytes(token) == b"\xc3")
    letter = next(token for token in range(2, 300) if vocabulary.token_bytes(token) == b"a")
    trail.add(part, Chosen(-1.0, ((letter, -0.5),)), 0)
    trail.add(letter, Chosen(-2.0), 3)
    assert trail.take(0) == ()
    (first,) = trail.take(3)
    assert (first.token, first.token_bytes, first.logprob) == ("\N{REPLACEMENT CHARACTER}", b"\xc3", -1.0)
    assert [(top.token, top.token_bytes, top.logprob) for top in first.top] == [("a", b"a", -0.5)]
    assert [entry.token for entry in trail.take(None)] == ["a"]
