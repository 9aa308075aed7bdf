"""Log probabilities in both of OpenAI's forms: a list of tokens (chat), and parallel lists (completions)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polyroute.backends.remote import shape
from polyroute.backends.remote.dialect import Malformed
from polyroute.core.event import TokenLogprob, TopLogprob


def token_logprobs(logprobs: Mapping[str, Any]) -> tuple[TokenLogprob, ...]:
    """The tokens of one choice's `logprobs`, whichever form it has; none where it is empty."""
    if "tokens" in logprobs:
        return _parallel(logprobs)
    return tuple(_of_chat(shape.mapping(item, "content")) for item in shape.items(logprobs, "content"))


def _of_chat(item: Mapping[str, Any]) -> TokenLogprob:
    token = shape.text(item, "token")
    top = (shape.mapping(other, "top_logprobs") for other in shape.items(item, "top_logprobs"))
    return TokenLogprob(token, _bytes(item, token), shape.number(item, "logprob"), tuple(map(_top, top)))


def _top(item: Mapping[str, Any]) -> TopLogprob:
    token = shape.text(item, "token")
    return TopLogprob(token, _bytes(item, token), shape.number(item, "logprob"))


def _bytes(item: Mapping[str, Any], token: str) -> bytes:
    """The token's own bytes, which `bytes` holds where the token is part of a character."""
    if item.get("bytes") is None:
        return token.encode()
    try:
        return bytes(shape.items(item, "bytes"))
    except (TypeError, ValueError) as error:
        raise Malformed("`bytes` is no list of bytes") from error


def _parallel(logprobs: Mapping[str, Any]) -> tuple[TokenLogprob, ...]:
    tokens, values = shape.items(logprobs, "tokens"), shape.items(logprobs, "token_logprobs")
    tops = shape.items(logprobs, "top_logprobs") or [None] * len(tokens)
    if not len(tokens) == len(values) == len(tops):
        raise Malformed("the lists of `logprobs` have different lengths")
    rows = zip(tokens, values, tops, strict=True)
    return tuple(_of_lists({"token": token, "logprob": value}, top) for token, value, top in rows)


def _of_lists(item: Mapping[str, Any], top: Any) -> TokenLogprob:
    token = shape.text(item, "token")
    others = {} if top is None else shape.mapping(top, "top_logprobs")
    ranked = sorted(((other, shape.number(others, other)) for other in others), key=lambda pair: -pair[1])
    return TokenLogprob(
        token,
        token.encode(),
        shape.number(item, "logprob"),
        tuple(TopLogprob(other, other.encode(), value) for other, value in ranked),
    )
