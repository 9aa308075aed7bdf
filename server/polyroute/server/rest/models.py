"""`GET /v1/models`: every model and route, in OpenAI's style and the legacy one in one body."""

from __future__ import annotations

from aiohttp import web
from typing_extensions import TypedDict

from polyroute.core.backend import ReplicaStatus
from polyroute.routing.gateway import Gateway
from polyroute.routing.views import ModelView, VariantView
from polyroute.server.rest.failures import json_response


class Replica(TypedDict):
    """One running instance of a model."""

    name: str
    state: str
    detail: str
    in_flight: int
    version: str


class Variant(TypedDict):
    """One arm of a route; `share` is its part of the traffic, 0 to 1."""

    name: str
    model: str
    share: float


class Model(TypedDict):
    """A name to send as `model`. `created` is Unix time in seconds of when it became ready, 0 before.

    `state` is the lower-case name of `polyroute.v1.ModelState`'s value; `context_length` is in tokens, 0 when not
    known.
    """

    id: str
    object: str
    created: int
    owned_by: str
    type: str
    version: str
    state: str
    detail: str
    context_length: int
    chat: bool
    default: bool
    in_flight: int
    queued: int
    max_concurrency: int
    max_queue: int
    replicas: list[Replica]
    variants: list[Variant]
    fallback: list[str]


class ModelList(TypedDict):
    """Every model and route; `models` has their IDs alone, `default_model` answers where none is named."""

    object: str
    data: list[Model]
    default_model: str
    models: list[str]


class ModelsEndpoints:
    """The models of one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def list(self, http: web.Request) -> web.Response:
        """Every model and route."""
        views = self._gateway.models()
        listed: ModelList = {
            "object": "list",
            "data": [model(view) for view in views],
            "default_model": self._gateway.default_model,
            "models": [view.id for view in views],
        }
        return json_response(listed)

    async def one(self, http: web.Request) -> web.Response:
        """One of them, by its ID."""
        return json_response(model(self._gateway.model(http.match_info["model"])))


def model(view: ModelView) -> Model:
    """A model in JSON."""
    status = view.status
    return {
        "id": view.id,
        "object": "model",
        "created": int(status.ready_since),
        "owned_by": "polyroute",
        "type": view.type,
        "version": status.version,
        "state": status.state.name.lower(),
        "detail": status.detail,
        "context_length": status.context_length,
        "chat": status.chat,
        "default": view.default,
        "in_flight": view.in_flight,
        "queued": view.queued,
        "max_concurrency": view.max_concurrency,
        "max_queue": view.max_queue,
        "replicas": [_replica(replica) for replica in status.replicas],
        "variants": [_variant(variant) for variant in view.variants],
        "fallback": [*view.fallback],
    }


def _replica(replica: ReplicaStatus) -> Replica:
    return {
        "name": replica.name,
        "state": replica.state.name.lower(),
        "detail": replica.detail,
        "in_flight": replica.in_flight,
        "version": replica.version,
    }


def _variant(variant: VariantView) -> Variant:
    return {"name": variant.name, "model": variant.model, "share": variant.share}
