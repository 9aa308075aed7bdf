"""Durations and times survive the wire."""

from __future__ import annotations

import pytest

from polyroute.server.wire.values import duration, seconds_of, timestamp, unix_of


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 0.1, 1.999999999, 3600.5, -0.5, -2.25, 315_576_000_000.0])
def test_durations_come_back(seconds: float) -> None:
    wire = duration(seconds)
    assert seconds_of(wire) == pytest.approx(seconds)
    assert wire.seconds == 0 or wire.nanos == 0 or (wire.seconds < 0) == (wire.nanos < 0)
    wire.ToJsonString()  # refuses what is out of form


def test_times_come_back() -> None:
    assert unix_of(timestamp(1_700_000_000.25)) == 1_700_000_000.25
    timestamp(1_700_000_000.9999999999).ToJsonString()
