"""What a run holds for its followers is counted by what it takes."""

from __future__ import annotations

import sys

from polyroute.core.event import Token
from polyroute.routing.cache.parts import weight


def test_pieces_of_a_text_count_beside_it() -> None:
    pieces = tuple("abcd" for _ in range(1000))
    token = Token("".join(pieces), pieces=pieces)
    assert weight(token) >= len(token.text) + sum(map(sys.getsizeof, pieces)) + sys.getsizeof(pieces)
