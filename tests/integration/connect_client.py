"""A client of the Connect protocol with JSON, small enough to see every byte."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo

from polyroute.server.app import Server
from tests.integration.rest_serving import WAIT_S

GENERATE = "polyroute.v1.InferenceService/Generate"
STREAM = "polyroute.v1.InferenceService/StreamGenerate"
DETAILS = {kind.DESCRIPTOR.full_name: kind for kind in (ErrorInfo, BadRequest, RetryInfo)}


@dataclass(frozen=True, slots=True)
class Told:
    """One answer: its status, its JSON and its headers."""

    status: int
    body: Any
    headers: Mapping[str, str]

    @property
    def details(self) -> dict[str, Any]:
        """The details of an error, decoded, by the name of their type."""
        return details(self.body)


@dataclass(frozen=True, slots=True)
class Streamed:
    """One stream: its messages and what stood in its last envelope."""

    messages: list[Any]
    end: Any


@dataclass(slots=True)
class Caller:
    """Calls the methods of one server."""

    url: str
    client: aiohttp.ClientSession

    async def call(self, method: str, message: object, headers: Mapping[str, str] | None = None) -> Told:
        """A unary call; `message` is sent as it is where it is bytes."""
        raw = message if isinstance(message, bytes) else json.dumps(message).encode()
        sent = {"Content-Type": "application/json", "Connect-Protocol-Version": "1", **(headers or {})}
        async with self.client.post(f"{self.url}/{method}", data=raw, headers=sent) as answer:
            return Told(answer.status, await answer.json(), answer.headers)

    async def stream(self, message: object, headers: Mapping[str, str] | None = None) -> Streamed:
        """A whole stream, which must end as such."""
        sent = {"Content-Type": "application/connect+json", **(headers or {})}
        raw = message if isinstance(message, bytes) else envelope(message)
        async with self.client.post(f"{self.url}/{STREAM}", data=raw, headers=sent) as answer:
            assert answer.status == 200, await answer.text()
            assert answer.content_type == "application/connect+json"
            envelopes = envelopes_of(await answer.read())
        assert [flags for flags, _ in envelopes] == [0] * (len(envelopes) - 1) + [2]
        return Streamed([message for _, message in envelopes[:-1]], envelopes[-1][1])


def envelope(message: object, flags: int = 0) -> bytes:
    """A message as a stream has it."""
    raw = message if isinstance(message, bytes) else json.dumps(message).encode()
    return struct.pack(">BI", flags, len(raw)) + raw


def envelopes_of(raw: bytes) -> list[tuple[int, Any]]:
    """Flags and JSON of each message; every one must be whole."""
    found = []
    while raw:
        flags, length = struct.unpack_from(">BI", raw)
        assert len(raw) >= 5 + length
        found.append((flags, json.loads(raw[5 : 5 + length])))
        raw = raw[5 + length :]
    return found


def details(error: Mapping[str, Any]) -> dict[str, Any]:
    """The details of an error, decoded, by the name of their type."""
    padded = ((one["type"], base64.b64decode(one["value"] + "==")) for one in error["details"])
    return {name: DETAILS[name].FromString(value) for name, value in padded if name in DETAILS}


@asynccontextmanager
async def calling(server: Server) -> AsyncIterator[Caller]:
    """A caller of a running server's HTTP address."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=WAIT_S)) as client:
        yield Caller(f"http://{server.http_address}", client)
