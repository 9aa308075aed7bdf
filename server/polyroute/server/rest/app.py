"""Puts the REST shim together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from aiohttp import web
from prometheus_client import CollectorRegistry

from polyroute.core.call import Entrance
from polyroute.routing.gateway import Gateway
from polyroute.server.feedback import FeedbackIntake
from polyroute.server.patience import STALL_S, Patience
from polyroute.server.rest.connect.service import Offer, methods
from polyroute.server.rest.connection_age import ConnectionAge
from polyroute.server.rest.edge import Edge
from polyroute.server.rest.endpoints import Endpoint, endpoints
from polyroute.server.rest.failures import json_response
from polyroute.server.rest.garbage import quiet_garbage
from polyroute.server.rest.health import Expose
from polyroute.server.rest.json_body import MAX_BODY_BYTES
from polyroute.server.rest.openapi import describe
from polyroute.server.rest.runner import PLAIN_PATHS, Serve
from polyroute.server.rest.session import Session, SessionEndpoint


def build_rest(
    gateway: Gateway,
    *,
    registry: CollectorRegistry,
    feedback: FeedbackIntake | None = None,
    drain: Callable[[], bool] = lambda: False,
    offers: Sequence[Offer] = (),
    session: SessionEndpoint | None = None,
    max_age_s: float | None = None,
    expose: Expose | None = None,
) -> web.Application:
    """Everything on the HTTP address, over one gateway.

    `drain()` says whether the server is draining: then new calls are refused, `/readyz` says so and connections end
    with their answers, as those older than `max_age_s` seconds do. `offers` are gRPC services to serve here too, and
    `session` tells the console what it may do. `expose` is as of `HealthPages`. Run it
    with `polyroute.server.rest.runner.RestRunner`.
    """
    listed = endpoints(gateway, registry, drain, feedback or FeedbackIntake(None), expose)
    if session is not None:
        summary = "What the console may show the one who asks"
        listed.append(Endpoint("GET", "/console/session", summary, session.session, answer=Session))
    rpcs = [method for offer in offers for method in methods(offer)]
    generating = {endpoint.entrance for endpoint in listed if endpoint.generates}
    generating |= {method.entrance for method in rpcs if method.generates}
    forms = {method.entrance: method.form for method in rpcs}
    quiet_garbage()
    edge = Edge(drain, generating, gateway.refused, ConnectionAge(max_age_s), Patience(STALL_S), forms)
    app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[edge.middleware()])
    plain: dict[str, Serve] = {
        endpoint.path: partial(edge.around, Entrance("http", endpoint.entrance), endpoint.answers)
        for endpoint in listed
        if endpoint.generates
    }
    app[PLAIN_PATHS] = plain

    async def openapi(http: web.Request) -> web.Response:
        return json_response(document)

    listed.append(Endpoint("GET", "/openapi.json", "This description", openapi, media=("application/json",)))
    document = describe(listed)
    for endpoint in listed:
        # IDs of models have slashes, and so have the console's files
        path = endpoint.path.replace("{model}", "{model:.+}").replace("{file}", "{file:.+}")
        app.router.add_route(endpoint.method, path, endpoint.answers)
        if endpoint.method == "GET":
            app.router.add_route("HEAD", path, endpoint.answers)
    for method in rpcs:  # not in the description: the protos are theirs
        app.router.add_route("POST", method.path, method.answer)
    return app
