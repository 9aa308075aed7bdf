"""An echo backend that says exactly the events that a test gives it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from polyroute.backends.echo import EchoBackend
from polyroute.core.call import Call
from polyroute.core.event import Event


class SpeakingBackend(EchoBackend):
    """Answers every call with `events`: tool calls and log probabilities, which a script of texts cannot say."""

    events: Sequence[Event] = ()

    async def _stream(self, call: Call) -> AsyncGenerator[Event, None]:
        self.calls.append(call)
        for event in self.events:
            yield event
