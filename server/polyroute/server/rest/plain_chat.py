"""Reads the commonest bodies of `/v1/chat/completions` in one step: text, and a few fields of plain types.

What this does not take, whatever is wrong with it, is for `ChatBody` to judge: so no error has two wordings.
"""

from __future__ import annotations

import re
from typing import Final, Literal

import msgspec

from polyroute.core.request import Message, Request, RoutingOptions, Sampling
from polyroute.server.rest.asked import Asked
from polyroute.server.rest.bodies import Stops, stops
from polyroute.server.rest.chat_body import CHAT

_NAME: Final = re.compile(rb'"\s*:')


class _Message(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    role: Literal["system", "user", "assistant"]
    content: str


class _StreamOptions(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    include_usage: bool


class _Chat(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    messages: list[_Message]
    model: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    stop: Stops | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    user: str | None = None


_read: Final = msgspec.json.Decoder(_Chat).decode
_read_names: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def plain_chat(raw: bytes, most_messages: int) -> Asked | None:
    """What a body asks for; None where it may ask for more than is read here, or for something that is not possible."""
    try:
        said = _read(raw)
        names = len(_read_names(raw)) + 2 * len(said.messages) + (said.stream_options is not None)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if _most_names(raw) != names or len(said.messages) > most_messages:  # a name may be there twice
        return None
    if said.stream_options is not None and not said.stream:
        return None
    return Asked(
        Request(
            model=said.model or "",
            messages=tuple([Message(message.role, message.content) for message in said.messages]),
            sampling=Sampling(
                max_tokens=said.max_tokens,
                temperature=said.temperature,
                top_p=said.top_p,
                presence_penalty=said.presence_penalty,
                frequency_penalty=said.frequency_penalty,
                seed=said.seed,
            ),
            stop=stops(said.stop),
            routing=RoutingOptions(user=said.user) if said.user else RoutingOptions(),
        ),
        CHAT,
        stream=bool(said.stream),
        with_usage=said.stream_options is not None and said.stream_options.include_usage,
        with_logprobs=False,
    )


def _most_names(raw: bytes) -> int:
    """How often a name of JSON may end in the bytes, at times within a text: never fewer times than there are names."""
    if b" :" in raw or b"\n:" in raw or b"\r:" in raw or b"\t:" in raw:
        return len(_NAME.findall(raw))
    return raw.count(b'":')
