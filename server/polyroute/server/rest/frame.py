"""What is known of an HTTP request beside what aiohttp knows of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from aiohttp import web

from polyroute.core.call import Entrance
from polyroute.server.rest.dialect import AS_THEY_ARE, Dialect


@dataclass(slots=True)
class Frame:
    """Made when the request comes in, and completed as it is read.

    `arrived` is on the clock of `time.monotonic`, in seconds. `model` is the model or route that it asks for, once that
    is read, and `dialect` has the names of its fields. `last` says that the connection is old enough to end with this
    answer; `called` that the request has become a call, or several: the gateway tells of those.
    """

    entrance: Entrance
    request_id: str
    arrived: float
    last: bool = False
    model: str = ""
    dialect: Dialect = AS_THEY_ARE
    called: bool = False


FRAME: Final = web.RequestKey("frame", Frame)
"""Where a request has its frame."""
