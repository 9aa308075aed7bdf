"""Counts tokens at a peer that has vLLM's `POST /tokenize` (vLLM documentation, "Tokenizer API")."""

from __future__ import annotations

from typing import Any

from polyroute.backends.remote import shape
from polyroute.backends.remote.dialect import Malformed
from polyroute.backends.remote.openai_request import outgoing
from polyroute.backends.remote.peer import Peer
from polyroute.core.backend import TokenCount
from polyroute.core.call import Call
from polyroute.core.errors import Unimplemented
from polyroute.core.request import Request

_MAX_BYTES = 32 * 1024 * 1024
_NOT_THERE = (404, 405, 501)


async def count_tokens(peer: Peer, call: Call, peer_model: str) -> TokenCount:
    """The peer's count; raises `Unimplemented` where it has no such call, else as a call for an answer does."""
    request = Request(prompt=call.request.prompt, messages=call.request.messages, tools=call.request.tools)
    body: dict[str, Any] = dict(outgoing(request, peer_model).body)
    del body["stream"], body["stream_options"]
    response = await peer.send("POST", "/tokenize", call=call, body=body)
    try:
        if response.status in _NOT_THERE:
            raise Unimplemented(f"{peer.where}: does not count tokens")
        if not 200 <= response.status < 300:
            raise await peer.refusal(response)
        answer = bytearray()
        while piece := await peer.read(response):
            answer += piece
            if len(answer) > _MAX_BYTES:
                raise peer.failed(f"sent a count of more than {_MAX_BYTES} bytes")
    finally:
        response.close()
    try:
        counted = shape.parse(bytes(answer))
        if counted.get("count") is None:
            raise Malformed("has no `count`")
        return TokenCount(shape.count(counted, "count"), shape.count(counted, "max_model_len"))
    except Malformed as error:
        raise peer.failed(f"its count {error}", bytes(answer)) from error
