"""The line of a call waits as what is known of it, and holds and shows nothing of what was said."""

from __future__ import annotations

from polyroute.core.call import Call, Entrance
from polyroute.core.errors import PeerFailed
from polyroute.core.event import Attempt
from polyroute.core.request import Request
from polyroute.core.trace import Trace
from polyroute.routing.call_line import write_line
from polyroute.routing.observation import Observation
from tests.lines import captured_lines


def test_what_waits_shows_no_more_than_the_line_has() -> None:
    call = Call(Request(model="m", prompt="the secret prompt"), "r1", entrance=Entrance("grpc", "a.B/C"))
    seen = Observation(call, Trace("a" * 32), lambda: call.arrived + 1)
    attempt = Attempt("m", "r0", reason="PEER_FAILED", message="the peer quotes the secret prompt")
    seen.failed(PeerFailed("bad").after((attempt,), "bad"))
    seen.over()
    with captured_lines() as lines:
        write_line(seen)
        waits = repr(lines)
    (line,) = lines
    assert (line["log_level"], line["request_id"], line["trace_id"]) == ("warning", "r1", "a" * 32)
    assert (line["entrance"], line["outcome"], line["total_s"]) == ("a.B/C", "PEER_FAILED", 1)
    assert line["attempts"] == ["m at r0: PEER_FAILED"]
    assert "PEER_FAILED" in waits
    assert "secret" not in waits + repr(lines)
