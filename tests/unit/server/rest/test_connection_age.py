"""HTTP connections end when they are old, give or take a tenth."""

from __future__ import annotations

import random
from asyncio import BaseTransport

from polyroute.server.rest.connection_age import JITTER, ConnectionAge
from tests.clock import Clock


class Transport(BaseTransport):
    """A connection, which nothing is asked of."""


def test_a_connection_ends_when_it_is_of_age() -> None:
    clock, connections = Clock(), [Transport() for _ in range(100)]
    age = ConnectionAge(10.0, clock=clock, chance=random.Random(1))
    assert not any(map(age.over, connections))
    clock.now = 10 * (1 - JITTER) - 0.01
    assert not any(map(age.over, connections))
    clock.now = 10.0
    assert 20 < sum(map(age.over, connections)) < 80  # not all at once
    clock.now = 10 * (1 + JITTER)
    assert all(map(age.over, connections))


def test_without_an_age_none_ends() -> None:
    clock, connection = Clock(), Transport()
    age = ConnectionAge(None, clock=clock)
    age.over(connection)
    clock.now = 1e9
    assert not age.over(connection)
    assert not ConnectionAge(1.0).over(None)
