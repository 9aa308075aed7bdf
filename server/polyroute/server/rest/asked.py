"""What a body asks for, once it is read; and those bodies that are known, for equal bytes ask the same."""

from __future__ import annotations

import msgspec
from aiohttp import web
from msgspec.structs import replace

from polyroute.core.call import Call, Worked
from polyroute.core.request import Request
from polyroute.routing.gateway import Gateway
from polyroute.server.answers import Answer, answered, whole_answer
from polyroute.server.known import KnownBytes
from polyroute.server.rest.call_headers import accept, call
from polyroute.server.rest.dialect import Dialect
from polyroute.server.rest.frame import FRAME


class Asked(msgspec.Struct, frozen=True, gc=False):
    """The router's request, and what concerns the writing of its answer; `dialect` has the names of its fields.

    `worked` belongs to the request where its bytes are known: then it was checked before.
    """

    request: Request
    dialect: Dialect
    stream: bool = False
    with_usage: bool = False
    with_logprobs: bool = False
    worked: Worked | None = None


class KnownBodies:
    """The bodies of one endpoint that were answered from memory and may be again, as of `KnownBytes`."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._known: KnownBytes[Asked] = KnownBytes(lambda: gateway.limits)

    def find(self, raw: bytes) -> Asked | None:
        """What the bytes ask for, where they are known."""
        return self._known.find(raw)

    def call(self, http: web.Request, asked: Asked) -> Call:
        """The call that a request makes, which asks for `asked`; raises `InvalidArgument`."""
        made = call(http, asked.request, self._gateway.sticky_headers, asked.worked, streams=asked.stream)
        http[FRAME].dialect = asked.dialect
        accept(http, made, self._gateway.limits, checked=made.worked is asked.worked)
        return made

    async def answer(self, raw: bytes, asked: Asked, made: Call) -> Answer:
        """The answer to the call that the bytes, which ask for `asked`, have become."""
        whole = self._gateway.at_hand(made)
        if whole is None:
            return await answered(self._gateway.generate(made))
        self.keep(raw, asked, made)
        return whole_answer(whole)

    def keep(self, raw: bytes, asked: Asked, made: Call) -> None:
        """The bytes are known from now on, unless the call's headers asked for something beside."""
        if asked.worked is None and made.worked is not None and made.request is asked.request:
            self._known.keep(raw, replace(asked, worked=made.worked))
