"""`GET /console/session`: what the console may show the one who asks."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version

from aiohttp import web
from typing_extensions import TypedDict

from polyroute.core.config import ConsoleConfig
from polyroute.server.rest.failures import json_response
from polyroute.server.rest.operators import objection


class Session(TypedDict):
    """`operate`: whether the caller may use the admin service here; where not, `operate_refused` says why.

    `experiments`: whether this server keeps records of experiments, and so takes feedback. `grpc_port`: where the same
    services listen for gRPC, on the host's own address or another.
    """

    version: str
    operate: bool
    operate_refused: str
    experiments: bool
    grpc_port: int


class SessionEndpoint:
    """Answers by what is in force of `console`; `grpc_port()` is known once the server has started."""

    def __init__(
        self, console: Callable[[], ConsoleConfig], grpc_port: Callable[[], int], *, experiments: bool
    ) -> None:
        self._console = console
        self._grpc_port = grpc_port
        self._experiments = experiments
        self._version = version("polyroute")

    async def session(self, http: web.Request) -> web.Response:
        """What this caller may do."""
        refused = objection(http, self._console())
        told: Session = {
            "version": self._version,
            "operate": not refused,
            "operate_refused": refused,
            "experiments": self._experiments,
            "grpc_port": self._grpc_port(),
        }
        response = json_response(told)
        response.headers["Cache-Control"] = "no-store"
        return response
