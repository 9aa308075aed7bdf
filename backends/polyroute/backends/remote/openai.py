"""The dialect of OpenAI-compatible peers: vLLM, SGLang, llama.cpp, hosted services, another Polyroute."""

from __future__ import annotations

from polyroute.backends.remote.dialect import Outgoing
from polyroute.backends.remote.openai_answer import OpenAIAnswer
from polyroute.backends.remote.openai_request import outgoing
from polyroute.core.request import Request


class OpenAIDialect:
    """See `polyroute.backends.remote.dialect.Dialect`."""

    chat = True

    def outgoing(self, request: Request, peer_model: str) -> Outgoing:
        """The request; raises `Unsupported` for tools with a prompt, `InvalidArgument` for `extra` that collides."""
        return outgoing(request, peer_model)

    def reader(self, request: Request) -> OpenAIAnswer:
        """A reader for the answer to `request`."""
        return OpenAIAnswer(request.sampling.seed)
