"""What a dialect is: how a request is put to a peer, and how its answer is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from polyroute.core.event import Finished, Token
from polyroute.core.request import Request


class Malformed(Exception):
    """The peer's answer is not of the dialect's shape; the message says in what."""


class AnsweredError(Exception):
    """The peer told an error where its answer should be; the message is its own."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request as a peer takes it: JSON to POST to `path` below its base URL."""

    path: str
    body: Mapping[str, Any]


class AnswerReader(Protocol):
    """Reads one answer, whole or event by event. Its methods raise `Malformed` or `AnsweredError`.

    `begun` is set as soon as the model has produced anything, `done` once nothing more is to come.
    """

    begun: bool
    done: bool

    def texts(self, events: Sequence[bytes]) -> list[str]:
        """Takes events without a name, from the first on, that bring text at most, and gives that of each: most are so.

        As many as it gives texts are taken, empty ones too; where that is not all, and it is not `done`, `event` is to
        take the next.
        """
        ...

    def event(self, name: bytes, data: bytes) -> Iterator[Token]:
        """Takes the next server-sent event of a stream."""
        ...

    def whole(self, body: bytes) -> Iterator[Token]:
        """Takes an answer that came in one piece."""
        ...

    def finished(self) -> Finished:
        """The end of the answer; raises `Malformed` where the peer told none."""
        ...


class Dialect(Protocol):
    """One way that peers are spoken to."""

    chat: bool
    """Whether it carries conversations."""

    def outgoing(self, request: Request, peer_model: str) -> Outgoing:
        """The request in this dialect; raises `Unsupported` for a field that it cannot carry."""
        ...

    def reader(self, request: Request) -> AnswerReader:
        """A reader for the answer to `request`."""
        ...
