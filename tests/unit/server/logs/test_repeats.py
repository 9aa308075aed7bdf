"""A warning that repeats itself is told at once, and then now and then, with how many were left out."""

from __future__ import annotations

from typing import Any

from polyroute.server.logs.repeats import MOST_KINDS, Repeats


def warning(event: str = "peer.lost", **fields: Any) -> dict[str, Any]:
    return {"event": event, "level": "warning", "timestamp": 0.0, **fields}


def test_the_first_is_told_and_the_others_are_counted() -> None:
    repeats = Repeats(10)
    assert repeats.passes(warning(at=0), 0)
    assert not any(repeats.passes(warning(at=now), now) for now in (1, 2, 3))
    assert repeats.due(9.9) == []
    assert repeats.due(10) == [warning(at=3, left_out=2)]
    assert repeats.due(20) == []
    assert repeats.passes(warning(at=21), 21)


def test_one_that_is_held_says_when_it_is_due() -> None:
    repeats = Repeats(10)
    assert repeats.passes(warning(), 5)
    assert repeats.wait_s(6) is None
    assert not repeats.passes(warning(), 7)
    assert repeats.wait_s(8) == 7
    assert repeats.due(15) == [warning()]  # none was left out before it
    assert repeats.wait_s(15) is None


def test_at_the_end_whatever_is_held_is_told() -> None:
    repeats = Repeats(10)
    for now in range(3):
        repeats.passes(warning(at=now), now)
    assert repeats.due(3, all=True) == [warning(at=2, left_out=1)]


def test_warnings_about_different_things_are_different() -> None:
    repeats = Repeats(10)
    assert repeats.passes(warning(peer="a"), 0)
    assert repeats.passes(warning(peer="b"), 0)
    assert repeats.passes(warning("peer.found", peer="a"), 0)
    assert not repeats.passes(warning(peer="a", reason="another"), 1)


def test_lines_of_the_standard_library_are_known_by_their_template() -> None:
    repeats = Repeats(10)
    assert repeats.passes(warning("retrying in 1 s", logger="x", template="retrying in %d s"), 0)
    assert not repeats.passes(warning("retrying in 2 s", logger="x", template="retrying in %d s"), 1)
    assert repeats.passes(warning("retrying in 2 s", logger="y", template="retrying in %d s"), 1)


def test_information_and_what_belongs_to_a_request_always_pass() -> None:
    repeats = Repeats(10)
    for _ in range(3):
        assert repeats.passes({**warning("call.finished"), "level": "info"}, 0)
        assert repeats.passes(warning("call.finished", request_id="r"), 0)


def test_kinds_are_bounded() -> None:
    repeats = Repeats(10)
    told = sum(repeats.passes(warning(peer=str(i)), 0) for i in range(MOST_KINDS * 3))
    assert told == MOST_KINDS + 1
    assert repeats.due(10)  # the one for all others
    repeats.due(30)
    assert repeats.passes(warning(peer="new"), 31)
