"""Asks a peer what it is: which dialect it speaks, and what it says of the model (`GET /v1/models`)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from polyroute.backends.remote import shape
from polyroute.backends.remote.connection import Response
from polyroute.backends.remote.dialect import Malformed
from polyroute.backends.remote.peer import Peer
from polyroute.core.errors import PeerFailed, PeerUnreachable

PROBE_WAIT_S: Final = 10.0
_MAX_BYTES = 4 * 1024 * 1024
_ASK_AGAIN = (401, 403, 407, 408, 425, 429)
"""Refusals that do not tell whether there is a list; of the others among 4xx, each says that there is none."""
_TOLD: Final = ("version", "max_model_len", "context_length")
"""What is read of a model; some peers describe each of hundreds in kilobytes."""


@dataclass(frozen=True, slots=True)
class PeerFacts:
    """What a peer says of itself; empty or 0 where it does not say. `listed` tells whether it names the model.

    `version` is None of a peer that has none to tell, and empty of one that does not know it now.
    """

    api: Literal["openai", "generate"]
    version: str | None = None
    context_length: int = 0
    listed: bool = True


@dataclass(frozen=True, slots=True)
class ModelList:
    """What a peer answers: what it says of its models, by their names; None where it has no list of OpenAI's."""

    models: Mapping[str, Mapping[str, Any]] | None = None

    def facts(self, peer_model: str) -> PeerFacts:
        """What it says of one model."""
        if self.models is None:
            return PeerFacts("generate")
        item = self.models.get(peer_model)
        if item is None:
            return PeerFacts("openai", listed=False)
        try:
            length = shape.count(item, "max_model_len") or shape.count(item, "context_length")
            version = shape.text(item, "version")[:256] if "version" in item else None
        except Malformed:
            return PeerFacts("generate")
        return PeerFacts("openai", version, length)


async def probe(peer: Peer) -> ModelList:
    """The models of a peer, within `PROBE_WAIT_S`.

    A peer that answers with a list in OpenAI's form speaks that dialect, and one that has no such list the other one.
    Raises `PeerUnreachable` where nothing answers in HTTP; and the error of the status where that leaves open which it
    is, as 401 and 500 do.
    """
    try:
        async with asyncio.timeout(PROBE_WAIT_S):
            # Most of many peers are idle: a connection kept to each would take more files than there are.
            try:
                response = await peer.send("GET", "/v1/models", keep=False)
            except PeerFailed as error:  # silent, or no HTTP: nothing that a call could get anything else of
                raise PeerUnreachable(error.message) from error
            try:
                return await _listed(peer, response)
            finally:
                response.close()
    except TimeoutError as error:
        raise PeerUnreachable(f"{peer.where}: no answer to GET /v1/models within {PROBE_WAIT_S:g} s") from error


async def _listed(peer: Peer, response: Response) -> ModelList:
    if (400 <= response.status < 500 and response.status not in _ASK_AGAIN) or response.status == 501:
        return ModelList()
    if not 200 <= response.status < 300:
        raise await peer.refusal(response)
    body = bytearray()
    while piece := await peer.read(response):
        body += piece
        if len(body) > _MAX_BYTES:
            raise peer.failed(f"its list of models has more than {_MAX_BYTES} bytes")
    try:
        return _read(shape.parse(bytes(body)))
    except Malformed:
        return ModelList()


def _read(body: Mapping[str, Any]) -> ModelList:
    if body.get("object") != "list" or not isinstance(body.get("data"), list):
        return ModelList()
    models: dict[str, Mapping[str, Any]] = {}
    for item in body["data"]:
        if isinstance(item, dict) and isinstance(item.get("id"), str):
            models.setdefault(item["id"], {key: item[key] for key in _TOLD if key in item})
    return ModelList(models)
