"""Answers in HTTP/1.1 (RFC 9112), read by llhttp from the bytes that a connection brings."""

from __future__ import annotations

from typing import Final

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser
from multidict import CIMultiDict

MAX_HEADER_BYTES: Final = 16 * 1024
"""Longest name and value of a header."""
MAX_HEADERS: Final = 128
MAX_ASIDE_BYTES: Final = 64 * 1024
"""Most bytes that may come one after the other without any of a body: of heads, of trailers, around chunks."""
QUOTED_BYTES: Final = 2048
"""How much of what is no answer is quoted: more than is shown, so that no secret in it is cut before it is struck."""


class NotHttp(Exception):
    """What came is no answer in HTTP, or none within the limits."""


class HttpAnswers:
    """Reads the answers that one connection brings, each after `begin`: none comes unasked.

    Of the answer that is being read, `status` is 0 until its head is there; `headers` are then known. `pieces` holds
    what has come of its body and is not taken yet, and `complete` tells that no more is to come. `begun` says that
    any of it has come. Once the connection can bring no other answer, `reusable` is false.
    """

    __slots__ = ("_aside", "_parser", "begun", "complete", "headers", "on_body", "pieces", "reusable", "status")

    def __init__(self) -> None:
        self.status = 0
        self.headers: CIMultiDict[str] = CIMultiDict()
        self.pieces: list[bytes] = []
        self.complete = self.reusable = True
        self.begun = False
        self.on_body = self.pieces.append  # httptools calls what is named `on_...`, and finds it now
        self._aside = 0
        self._parser: HttpResponseParser | None = HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(  # as lenient as aiohttp is with servers that are a little off
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )

    def __repr__(self) -> str:
        return f"<HttpAnswers {self.status} {'complete' if self.complete else 'coming'}>"

    def begin(self) -> None:
        """Another request is sent: what comes next is its answer."""
        self.status = self._aside = 0
        self.headers = CIMultiDict()
        self.pieces.clear()
        self.begun = self.complete = False

    def feed(self, received: bytes) -> None:
        """Takes what has come; raises `NotHttp` for what makes no sense, unless it comes behind a complete answer."""
        if self._parser is None:
            return
        had = len(self.pieces)
        try:
            self._parser.feed_data(received)
        except HttpParserUpgrade:
            self.complete, self.reusable = True, False
        except HttpParserError as error:
            self.reusable = False
            if not self.complete:  # or it is only what comes behind it
                raise NotHttp(f"{error.__context__ or error}: {received[:QUOTED_BYTES]!r}") from error
        if len(self.pieces) > had or self.complete:
            self._aside = 0
            return
        self._aside += len(received)
        if self._aside > MAX_ASIDE_BYTES:
            self.reusable = False
            raise NotHttp(f"more than {MAX_ASIDE_BYTES} bytes without any of a body")

    def end(self, *, orderly: bool) -> None:
        """Nothing comes any more. Where the peer has ended it, an answer that does not tell its length is complete."""
        if self._parser is not None and orderly and self.status and not self._tells_length:
            self.complete = True
        self.reusable, self._parser = False, None

    def take(self) -> bytes:
        """What has come of the body since the last time."""
        body = b"".join(self.pieces)
        self.pieces.clear()
        return body

    def on_message_begin(self) -> None:
        """Called by httptools, as all that follows."""
        if self.complete:
            raise NotHttp("an answer that nobody asked for")
        self.begun = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Takes a header of the head; those after the body are of no use."""
        if len(name) + len(value) > MAX_HEADER_BYTES or len(self.headers) == MAX_HEADERS:
            raise NotHttp(f"more than {MAX_HEADERS} headers, or one of more than {MAX_HEADER_BYTES} bytes")
        if b"\0" in value:
            raise NotHttp("a header with a null byte")
        if not self.status:
            self.headers.add(name.decode("latin-1"), value.rstrip(b" \t").decode(errors="surrogateescape"))

    def on_headers_complete(self) -> None:
        """Takes the head, but for that of an interim answer."""
        if self._parser is None:
            return
        status = self._parser.get_status_code()
        if status < 200 and status != 101:
            if status < 100 or (status > 103 and self._tells_length):
                raise NotHttp(f"an interim answer with a body, {status}")
            self.headers = CIMultiDict()
        else:
            self.status = status
            self.reusable = status != 101 and self._parser.should_keep_alive()

    def on_message_complete(self) -> None:
        """Ends the answer."""
        self.complete = self.status != 0

    @property
    def _tells_length(self) -> bool:
        """Whether the head says where the body ends; `identity` says nothing (RFC 2616, section 4.4)."""
        coding = self.headers.get("Transfer-Encoding", "identity")
        return "Content-Length" in self.headers or coding.lower() != "identity"
