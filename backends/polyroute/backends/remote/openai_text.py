"""Reads the chunk that is the commonest by far in an OpenAI-compatible stream: it brings text and nothing else."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

_Unsaid = Literal[""] | None
_Empty = Annotated[list[None], msgspec.Meta(max_length=0)] | None


class _Delta(msgspec.Struct, gc=False):
    content: str | None = None
    refusal: _Unsaid = None
    reasoning: _Unsaid = None
    reasoning_content: _Unsaid = None
    tool_calls: _Empty = None


class _Choice(msgspec.Struct, gc=False):
    index: Literal[0] | None = 0
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: _Unsaid = None
    logprobs: None = None


class _Chunk(msgspec.Struct, gc=False):
    """A chunk of one choice; whatever else would count is null, empty or absent."""

    choices: tuple[_Choice]
    usage: None = None
    error: None = None


_decode = msgspec.json.Decoder(_Chunk).decode


def text_of(data: bytes) -> str | None:
    """The text that a chunk of a stream brings, empty where it brings nothing; None where it may bring anything else.

    What it does not take, and what is no chunk at all, is for `OpenAIAnswer.event` to judge.
    """
    try:
        (choice,) = _decode(data).choices
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    delta = choice.delta
    return (None if delta is None else delta.content) or choice.text or ""
