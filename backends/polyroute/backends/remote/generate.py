"""The dialect of legacy peers: `POST /v1/generate` takes a prompt, and answers in one piece."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from polyroute.backends.remote import shape
from polyroute.backends.remote.dialect import AnsweredError, Malformed, Outgoing
from polyroute.core.errors import Unsupported
from polyroute.core.event import Finished, FinishReason, Token, Usage
from polyroute.core.request import Request

_CARRIED = {"max_tokens": "max_new_tokens", "temperature": "temperature", "top_p": "top_p", "top_k": "top_k"}
"""Fields of `Sampling` that the dialect has: their names in it."""


class GenerateDialect:
    """See `polyroute.backends.remote.dialect.Dialect`. A field that it has no word for is refused, never dropped."""

    chat = False

    def outgoing(self, request: Request, peer_model: str) -> Outgoing:
        """The request; raises `Unsupported` for messages, tools, and whatever else has no word in this dialect."""
        for name in ("messages", "response_format", "tools", "tool_choice", "extra"):
            if getattr(request, name):
                raise Unsupported(name, "the peer takes a plain prompt only (`POST /v1/generate`)")
        body: dict[str, Any] = {"prompt": request.prompt, "model": peer_model}
        for name in request.sampling.__struct_fields__:
            value = getattr(request.sampling, name)
            if value is None:
                continue
            if name not in _CARRIED:
                raise Unsupported(name, "the peer has no such field (`POST /v1/generate`)")
            body[_CARRIED[name]] = value
        if request.stop:
            body["stop"] = list(request.stop)
        return Outgoing("/v1/generate", body)

    def reader(self, request: Request) -> GenerateAnswer:
        """A reader for the answer to `request`."""
        return GenerateAnswer()


class GenerateAnswer:
    """The reader of one answer. Besides `output`, a Polyroute tells how it ended and how many tokens it took."""

    def __init__(self) -> None:
        self.begun = False
        self.done = False
        self._finished = Finished(FinishReason.UNSPECIFIED)

    def texts(self, events: Sequence[bytes]) -> list[str]:
        """None: a stream is never asked for."""
        return []

    def event(self, name: bytes, data: bytes) -> Iterator[Token]:
        """Refuses: a stream is never asked for."""
        raise Malformed("is a stream, which was not asked for")

    def whole(self, body: bytes) -> Iterator[Token]:
        """Takes the answer."""
        answer = shape.parse(body)
        if answer.get("error"):
            raise AnsweredError(shape.told_error(answer))
        if not isinstance(answer.get("output"), str):
            raise Malformed("has no `output`")
        usage = shape.section(answer, "usage")
        self._finished = Finished(
            FinishReason.__members__.get(shape.text(answer, "finish_reason").upper(), FinishReason.UNSPECIFIED),
            Usage(*(shape.count(usage, name) for name in Usage.__struct_fields__)),
            matched_stop=shape.text(answer, "matched_stop") or None,
        )
        self.begun = self.done = True
        if answer["output"]:
            yield Token(answer["output"])

    def finished(self) -> Finished:
        """The end; `UNSPECIFIED` where the peer does not tell how it ended."""
        return self._finished
