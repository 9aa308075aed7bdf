"""Bodies that came before, and were answered from memory, stand for what they asked for then."""

from __future__ import annotations

from dataclasses import replace as with_others

from msgspec.structs import replace

from polyroute.backends.echo import EchoBackend
from polyroute.core.call import Call, Worked
from polyroute.core.config import LimitsConfig
from polyroute.core.request import Request
from polyroute.server.rest.asked import Asked, KnownBodies
from polyroute.server.rest.dialect import AS_THEY_ARE
from tests.integration.rest_serving import gateway_over

ASKED = Asked(Request(model="m", prompt="a"), AS_THEY_ARE, with_logprobs=True)


def call(request: Request) -> Call:
    return Call(request, "id", worked=Worked(request))


async def test_a_body_is_known_with_what_was_worked_out_of_it() -> None:
    async with gateway_over(EchoBackend("m")) as gateway:
        known = KnownBodies(gateway)
        assert known.find(b"{}") is None
        known.keep(b"{}", ASKED, made := call(ASKED.request))
        found = known.find(b"{}")
        assert found is not None
        assert found.worked is made.worked
        assert replace(found, worked=None) == ASKED
        known.keep(b"{}", found, call(ASKED.request))
        assert known.find(b"{}") is found


async def test_a_body_whose_headers_asked_for_more_is_not_known() -> None:
    async with gateway_over(EchoBackend("m")) as gateway:
        known = KnownBodies(gateway)
        known.keep(b"{}", ASKED, call(replace(ASKED.request, model="other")))
        assert known.find(b"{}") is None


async def test_other_limits_have_every_body_checked_again() -> None:
    async with gateway_over(EchoBackend("m")) as gateway:
        known = KnownBodies(gateway)
        known.keep(b"{}", ASKED, call(ASKED.request))
        gateway.swap(with_others(gateway.snapshot, limits=LimitsConfig(max_messages=1)))
        assert known.find(b"{}") is None
