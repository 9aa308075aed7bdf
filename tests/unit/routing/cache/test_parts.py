"""What a run holds for its followers is counted by what it takes."""

from __future__ import annotations

import sys

from polyroute.core.event import Token, TokenLogprob, TopLogprob
from polyroute.core.request import ToolCall
from polyroute.routing.cache.parts import text_bytes, weight


def test_pieces_of_a_text_count_beside_it() -> None:
    pieces = tuple("abcd" for _ in range(1000))
    token = Token("".join(pieces), pieces=pieces)
    assert weight(token) >= len(token.text) + sum(map(sys.getsizeof, pieces)) + sys.getsizeof(pieces)


def test_all_that_a_token_says_counts() -> None:
    plain, top = Token("ab"), TopLogprob("x", b"x", -1.0)
    called = Token("ab", tool_calls=(ToolCall("id", "name", "arguments"),))
    likely = Token("ab", logprobs=(TokenLogprob("ab", b"ab", -0.1, (top, top)),))
    for token in (plain, called, likely):
        assert weight(token) - weight(plain) == text_bytes(token) - text_bytes(plain)
    assert weight(plain) < weight(called) < weight(likely)
