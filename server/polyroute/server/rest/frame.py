"""What is known of an HTTP request beside what aiohttp knows of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from aiohttp import web

from polyroute.core.call import Entrance
from polyroute.server.patience import Patience
from polyroute.server.rest.dialect import AS_THEY_ARE, Dialect


@dataclass(slots=True)
class Frame:
    """Made when the request comes in, and completed as it is read.

    `arrived` is on the clock of `time.monotonic`, in seconds. `patience` watches what is written as it comes. `headed`
    says that some header of the request is one that a call is made of, and `last` that the connection is old enough to
    end with this answer. `model` is the model or route that it asks for, once that is read, and `dialect` has the names
    of its fields; `called` says that the request has become a call, or several: the gateway tells of those.
    """

    entrance: Entrance
    request_id: str
    arrived: float
    patience: Patience
    headed: bool = True
    last: bool = False
    model: str = ""
    dialect: Dialect = AS_THEY_ARE
    called: bool = False


FRAME: Final = web.RequestKey("frame", Frame)
"""Where a request has its frame."""
