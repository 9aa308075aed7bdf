"""Bytes that came before, and were answered from memory, stand for the request that they stood for then."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError

from polyroute.core.call import Worked
from polyroute.core.config import LimitsConfig
from polyroute.core.request import Request
from polyroute.server.known import LONGEST
from polyroute.server.rpc.asked import Asked, Known, KnownRequests
from polyroute.v1 import inference_pb2 as pb


class World:
    """Limits that may become others."""

    def __init__(self, most_bytes: int = 1 << 20) -> None:
        self.limits = LimitsConfig()
        self.known = KnownRequests(lambda: self.limits, most_bytes=most_bytes)

    def asked(self, raw: bytes) -> Worked:
        """What a service does with the bytes: reads them, and keeps what they stand for."""
        read = self.known.read(raw)
        if isinstance(read, Known):
            return read.worked
        worked = Worked(Request(model=read.model, prompt=read.wire.prompt))
        self.known.keep(read, worked)
        return worked


def raw(prompt: str, **more: str) -> bytes:
    return pb.GenerateRequest(model="m", prompt=prompt, **more).SerializeToString()


def test_equal_bytes_are_read_once() -> None:
    world = World()
    first = world.asked(raw("a"))
    assert world.asked(raw("a")) is first
    assert world.asked(raw("b")) is not first
    again = world.known.read(raw("a"))
    assert (again.model, again.request_id) == ("m", "")


def test_what_was_not_kept_is_read_anew() -> None:
    world = World()
    assert isinstance(world.known.read(raw("a")), Asked)
    assert isinstance(world.known.read(raw("a")), Asked)


def test_a_request_with_an_id_is_its_own_and_a_long_one_is_not_kept() -> None:
    world = World()
    for given in (raw("a", request_id="mine"), raw("x" * LONGEST)):
        world.asked(given)
        assert isinstance(world.known.read(given), Asked)
    assert len(world.known) == 0


def test_other_limits_have_every_request_checked_again() -> None:
    world = World()
    first = world.asked(raw("a"))
    world.limits = LimitsConfig(max_messages=1)
    assert isinstance(world.known.read(raw("a")), Asked)
    assert world.asked(raw("a")) is not first
    assert isinstance(world.known.read(raw("a")), Known)


def test_the_oldest_leave_where_there_is_no_room() -> None:
    world = World(most_bytes=10_000)
    for i in range(100):
        world.asked(raw(f"prompt {i}"))
    assert 1 < len(world.known) < 6
    assert isinstance(world.known.read(raw("prompt 99")), Known)
    assert isinstance(world.known.read(raw("prompt 0")), Asked)


def test_bytes_that_are_no_message_are_refused_as_ever() -> None:
    with pytest.raises(DecodeError):
        World().known.read(b"\xff\xff")
