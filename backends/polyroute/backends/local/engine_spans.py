"""What a worker did for an answer as spans, made here out of the times that it tells: a worker knows no traces."""

from __future__ import annotations

import time
from typing import Final

from polyroute.backends.local.messages import Begun
from polyroute.core import attributes as names
from polyroute.core.errors import PolyrouteError
from polyroute.core.trace import Span

_NS: Final = 1_000_000_000


class EngineSpans:
    """Under an attempt's span: `prefill`, while the prompt was read, and `decode`, from the first token to the end."""

    def __init__(self, attempt: Span) -> None:
        self._attempt = attempt
        self._decode: Span | None = None

    def saw(self, begun: Begun | None) -> None:
        """The worker has sent something; `begun` is known from its first token on."""
        if begun is None or self._decode is not None:
            return
        now = time.time_ns()
        told = {
            names.INPUT_TOKENS: begun.prompt_tokens,
            names.CACHED_TOKENS: begun.cached_prompt_tokens,
            names.ENGINE_WAIT: begun.waited_s,
        }
        prefill = self._attempt.child("prefill", "internal", told, begun_ns=now - int(begun.read_s * _NS))
        prefill.end(now)
        self._decode = self._attempt.child("decode", "internal", begun_ns=now)

    def end(self, completion_tokens: int, error: PolyrouteError | None) -> None:
        """The answer has ended, or is not wanted any more."""
        if self._decode is not None:
            self._decode.attributes[names.OUTPUT_TOKENS] = completion_tokens
            if error is not None:
                self._decode.failed(error.reason, error.own_message)
            self._decode.end()
