"""`polyroute.v1.ModelService`: describes models and routes."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from typing import Any, Final

import grpc.aio

from polyroute.core.call import Call
from polyroute.core.errors import InvalidArgument
from polyroute.core.validate import validate
from polyroute.routing.gateway import Gateway
from polyroute.routing.views import RolloutStanding
from polyroute.server.sticky import headers_of
from polyroute.server.wire.models import model_to_wire, plan_to_wire
from polyroute.server.wire.request import request_from_wire
from polyroute.v1 import models_pb2 as pb
from polyroute.v1.models_pb2_grpc import ModelServiceServicer

PAGE_SIZE: Final = 100
MAX_PAGE_SIZE: Final = 1000
_TOKEN_MARK: Final = b"after:"


class ModelService(ModelServiceServicer):
    """Shows what one gateway can run; `standings()` are its rollouts."""

    def __init__(self, gateway: Gateway, standings: Callable[[], Iterable[RolloutStanding]] = tuple) -> None:
        self._gateway = gateway
        self._standings = standings

    async def ListModels(  # noqa: N802
        self, request: pb.ListModelsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ListModelsResponse:
        size = page_size(request.page_size)
        after = read_token(request.page_token)
        views = self._gateway.models(after, size + 1)
        page = views[:size]
        rollouts = {rollout.route: rollout for rollout in self._standings()}
        return pb.ListModelsResponse(
            models=[model_to_wire(view, rollouts.get(view.id)) for view in page],
            next_page_token=write_token(page[-1].id) if len(views) > size else "",
            default_model=self._gateway.default_model,
        )

    async def GetModel(  # noqa: N802
        self, request: pb.GetModelRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.GetModelResponse:
        view = self._gateway.model(request.model)
        rollout = next((rollout for rollout in self._standings() if rollout.route == view.id), None)
        return pb.GetModelResponse(model=model_to_wire(view, rollout))

    async def ExplainRoute(  # noqa: N802
        self, request: pb.ExplainRouteRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ExplainRouteResponse:
        try:
            asked = request_from_wire(request.request, self._gateway.limits.max_messages)
            validate(asked, self._gateway.limits)
            headers = headers_of(context.invocation_metadata() or (), self._gateway.sticky_headers)
            return plan_to_wire(self._gateway.explain(Call(asked, asked.request_id, headers=headers)))
        except InvalidArgument as error:
            raise InvalidArgument(f"request.{error.field}", error.problem, quoted=error.quoted) from error


def page_size(asked: int) -> int:
    """How many to return for a request's `page_size`; raises `InvalidArgument`."""
    if not 0 <= asked <= MAX_PAGE_SIZE:
        raise InvalidArgument("page_size", f"{asked}; must be from 0 to {MAX_PAGE_SIZE}")
    return asked or PAGE_SIZE


def write_token(last: str) -> str:
    """The token of the page after the one that ends with `last`; models added meanwhile do not disturb it."""
    return base64.urlsafe_b64encode(_TOKEN_MARK + last.encode()).decode()


def read_token(token: str) -> str:
    """The ID after which the page begins, empty for the first page; raises `InvalidArgument`."""
    if not token:
        return ""
    try:
        plain = base64.b64decode(token.encode(), altchars=b"-_", validate=True)
        if plain.startswith(_TOKEN_MARK):
            return plain.removeprefix(_TOKEN_MARK).decode()
    except ValueError:
        pass  # told below, as every other token that we did not write
    raise InvalidArgument("page_token", "is none that this server gave; begin again without one")
