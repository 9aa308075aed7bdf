"""Puts the REST shim together."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CollectorRegistry

from polyroute.routing.gateway import Gateway
from polyroute.server.feedback import FeedbackIntake
from polyroute.server.rest.edge import edge
from polyroute.server.rest.endpoints import Endpoint, endpoints
from polyroute.server.rest.failures import json_response
from polyroute.server.rest.garbage import quiet_garbage
from polyroute.server.rest.json_body import MAX_BODY_BYTES
from polyroute.server.rest.openapi import describe


def build_rest(
    gateway: Gateway,
    *,
    registry: CollectorRegistry,
    feedback: FeedbackIntake | None = None,
    drain: Callable[[], bool] = lambda: False,
) -> web.Application:
    """Everything on the HTTP address, over one gateway.

    `drain()` says whether the server is draining: then new calls are refused, `/readyz` says so and connections end
    with their answers. Run it with `handler_cancellation=True`, without which a caller that leaves stops nothing.
    """
    listed = endpoints(gateway, registry, drain, feedback or FeedbackIntake(None))
    generating = {endpoint.entrance for endpoint in listed if endpoint.generates}
    quiet_garbage()
    app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[edge(drain, generating, gateway.refused)])

    async def openapi(http: web.Request) -> web.Response:
        return json_response(document)

    listed.append(Endpoint("GET", "/openapi.json", "This description", openapi, media=("application/json",)))
    document = describe(listed)
    for endpoint in listed:
        # IDs of models have slashes
        path = endpoint.path.replace("{model}", "{model:.+}")
        app.router.add_route(endpoint.method, path, endpoint.answers)
        if endpoint.method == "GET":
            app.router.add_route("HEAD", path, endpoint.answers)
    return app
