"""What a body in one of OpenAI's shapes asks for, once it is read."""

from __future__ import annotations

import msgspec

from polyroute.core.request import Request
from polyroute.server.rest.dialect import Dialect


class Asked(msgspec.Struct, frozen=True, gc=False):
    """The router's request, and what concerns the writing of its answer; `dialect` has the names of its fields."""

    request: Request
    dialect: Dialect
    stream: bool
    with_usage: bool
    with_logprobs: bool
