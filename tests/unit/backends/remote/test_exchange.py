"""Events of one read are taken some at a time, in their order."""

from __future__ import annotations

import pytest

from polyroute.backends.remote.exchange import _AT_ONCE, _in_parts


@pytest.mark.parametrize("count", [0, 1, _AT_ONCE, _AT_ONCE + 1, 3 * _AT_ONCE + 5])
def test_no_more_than_some_events_are_read_together(count: int) -> None:
    events = [b"%d" % number for number in range(count)]
    parts = list(_in_parts([(b"", events), (b"error", (b"x",))]))
    assert [event for name, part in parts for event in part if not name] == events
    assert all(0 < len(part) <= _AT_ONCE for _, part in parts)
    assert parts[-1] == (b"error", (b"x",))
