"""`POST /v1/feedback`: what a caller thought of an answer."""

from __future__ import annotations

from datetime import datetime

from aiohttp import web
from typing_extensions import TypedDict

from polyroute.core.errors import InvalidArgument
from polyroute.server.feedback import FeedbackIntake
from polyroute.server.rest.failures import json_response
from polyroute.server.rest.json_body import Body, read_body


class FeedbackBody(Body):
    """One observation: `value` is a yes or no, or a number; `observed` is a time with its zone (RFC 3339)."""

    request_id: str
    metric: str
    value: bool | int | float
    observed: str | None = None


class FeedbackAnswer(TypedDict):
    """Whether the request is known to an experiment already; what comes late is joined afterwards."""

    matched: bool


class FeedbackEndpoint:
    """Hands feedback on."""

    def __init__(self, feedback: FeedbackIntake) -> None:
        self._feedback = feedback

    async def record(self, http: web.Request) -> web.Response:
        """Keeps one observation."""
        body = await read_body(http, FeedbackBody)
        observed = None if body.observed is None else _unix(body.observed)
        answer: FeedbackAnswer = {
            "matched": await self._feedback.take(body.request_id, body.metric, body.value, observed)
        }
        return json_response(answer)


def _unix(text: str) -> float:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise InvalidArgument("observed", "is no time with its zone; write one such as 2026-01-31T12:00:00Z")
    return time.timestamp()
