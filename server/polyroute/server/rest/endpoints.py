"""The list of endpoints: one entry each, from which both the routes and the API's description are made."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry

from polyroute.routing.gateway import Gateway
from polyroute.server.feedback import FeedbackIntake
from polyroute.server.rest.bodies import BatchBody, GenerateBody
from polyroute.server.rest.chat import ChatEndpoint
from polyroute.server.rest.chat_body import ChatBody
from polyroute.server.rest.completions import CompletionEndpoint
from polyroute.server.rest.console import MEDIA_TYPES, asset, index
from polyroute.server.rest.feedback import FeedbackAnswer, FeedbackBody, FeedbackEndpoint
from polyroute.server.rest.health import Alive, Expose, HealthPages, Readiness
from polyroute.server.rest.json_body import Body
from polyroute.server.rest.models import Model, ModelList, ModelsEndpoints
from polyroute.server.rest.native import BatchAnswer, NativeAnswer, NativeEndpoints
from polyroute.server.rest.openai_bodies import CompletionBody
from polyroute.server.rest.openai_shapes import ChatAnswer, CompletionAnswer


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method of one path. `body` and `answer` are its JSON; `media` lists what else it may answer with.

    `generates` says that each request is a call, or several.
    """

    method: str
    path: str
    summary: str
    answers: Callable[[web.Request], Awaitable[web.StreamResponse]]
    body: type[Body] | None = None
    answer: Any = None
    media: tuple[str, ...] = ()
    failures: tuple[int, ...] = ()
    generates: bool = False

    @property
    def entrance(self) -> str:
        """As `polyroute.core.call.Entrance.method` names it."""
        return f"{self.method} {self.path}"


_EVENTS = "text/event-stream"
_CALL = (400, 404, 429, 500, 501, 502, 503, 504)


def endpoints(
    gateway: Gateway,
    registry: CollectorRegistry,
    draining: Callable[[], bool],
    feedback: FeedbackIntake,
    expose: Expose | None = None,
) -> list[Endpoint]:
    """Every endpoint over one gateway, `/openapi.json` excepted: it describes them."""
    native, models = NativeEndpoints(gateway), ModelsEndpoints(gateway)
    chat, completion = ChatEndpoint(gateway), CompletionEndpoint(gateway)
    health = HealthPages(gateway, registry, draining, expose)
    metrics = ("text/plain", "application/openmetrics-text")
    return [
        Endpoint(
            "POST",
            "/v1/generate",
            "One prompt, one answer",
            native.generate,
            GenerateBody,
            NativeAnswer,
            failures=_CALL,
            generates=True,
        ),
        Endpoint(
            "POST",
            "/v1/generate/batch",
            "Several prompts",
            native.batch,
            BatchBody,
            BatchAnswer,
            failures=_CALL,
            generates=True,
        ),
        Endpoint(
            "POST",
            "/v1/stream",
            "One prompt, streamed as `start`, `delta` and `end`, or `error`",
            native.stream,
            GenerateBody,
            media=(_EVENTS,),
            failures=_CALL,
            generates=True,
        ),
        Endpoint(
            "POST",
            "/v1/chat/completions",
            "A conversation, as OpenAI has it",
            chat.complete,
            ChatBody,
            ChatAnswer,
            (_EVENTS,),
            _CALL,
            generates=True,
        ),
        Endpoint(
            "POST",
            "/v1/completions",
            "One prompt, as OpenAI has it",
            completion.complete,
            CompletionBody,
            CompletionAnswer,
            (_EVENTS,),
            _CALL,
            generates=True,
        ),
        Endpoint(
            "POST",
            "/v1/feedback",
            "What a caller thought of an answer",
            FeedbackEndpoint(feedback).record,
            FeedbackBody,
            FeedbackAnswer,
            failures=(400, 501, 503),
        ),
        Endpoint("GET", "/v1/models", "Every model and route", models.list, answer=ModelList),
        Endpoint(
            "GET",
            "/v1/models/{model}",
            "One model or route; its ID may have slashes",
            models.one,
            answer=Model,
            failures=(404,),
        ),
        Endpoint("GET", "/healthz", "Whether the process lives", health.healthz, answer=Alive),
        Endpoint(
            "GET",
            "/readyz",
            "Whether the default model answers; 503 with the same JSON where not",
            health.readyz,
            answer=Readiness,
        ),
        Endpoint("GET", "/metrics", "Metrics for Prometheus", health.metrics, media=metrics),
        Endpoint("GET", "/", "The console", index, media=("text/html",)),
        Endpoint(
            "GET",
            "/console/{file}",
            "A file of the console; its name may have slashes",
            asset,
            media=tuple(dict.fromkeys(kind.split(";")[0] for kind in MEDIA_TYPES.values())),
            failures=(404,),
        ),
    ]
