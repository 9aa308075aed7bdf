"""What calls ask and what answers say, as text."""

from __future__ import annotations

from typing import Final

import msgspec

from polyroute.core.event import Token
from polyroute.core.request import Request

MOST_CONTENT: Final = 65_536
"""Characters that are kept, or compared, of a prompt and of an answer."""


def prompt_of(request: Request) -> str:
    """The input of a request: its prompt, or its messages in JSON."""
    if request.messages is None:
        return (request.prompt or "")[:MOST_CONTENT]
    messages = [{"role": message.role, "content": message.content} for message in request.messages]
    return msgspec.json.encode(messages).decode()[:MOST_CONTENT]


def storable(text: str) -> str:
    """A text as it is kept: cut, and without what databases cannot hold, such as NUL and halves of surrogate pairs."""
    return text[:MOST_CONTENT].replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def said(token: Token) -> str:
    """What a part of an answer says, the calls of tools included."""
    return token.text + "".join(call.name + call.arguments for call in token.tool_calls)
