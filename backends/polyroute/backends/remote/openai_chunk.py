"""Reads the chunks that are the commonest by far in an OpenAI-compatible stream: text, its end, and the usage."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

_Unsaid = Literal[""] | None
_Empty = Annotated[list[None], msgspec.Meta(max_length=0)] | None
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Delta(msgspec.Struct, gc=False):
    """What a chunk of a chat adds to the message."""

    content: str | None = None
    refusal: _Unsaid = None
    reasoning: _Unsaid = None
    reasoning_content: _Unsaid = None
    tool_calls: _Empty = None


class Choice(msgspec.Struct, gc=False):
    """The one choice of a chunk."""

    index: Literal[0] | None = 0
    delta: Delta | None = None
    text: str | None = None
    finish_reason: str | None = None
    stop_reason: object = None
    matched_stop: object = None
    logprobs: None = None

    @property
    def said(self) -> str:
        """What it adds to the answer; empty where that is nothing."""
        return (self.delta.content if self.delta is not None else None) or self.text or ""


class PromptDetails(msgspec.Struct, gc=False):
    """What is known of the prompt's tokens."""

    cached_tokens: _Count | None = None


class ChunkUsage(msgspec.Struct, gc=False):
    """The tokens that were read and written."""

    prompt_tokens: _Count
    completion_tokens: _Count | None = None
    prompt_tokens_details: PromptDetails | None = None


class Chunk(msgspec.Struct, gc=False):
    """A chunk; whatever else would count is null, empty or absent."""

    choices: list[Choice]
    usage: ChunkUsage | None = None
    error: None = None


_decode = msgspec.json.Decoder(Chunk).decode


def chunk_of(data: bytes) -> Chunk | None:
    """The chunk, of one choice or none; None of one that may bring anything else, and of what is no chunk at all.

    Those are for `OpenAIAnswer.event` to judge.
    """
    try:
        chunk = _decode(data)
        return chunk if len(chunk.choices) <= 1 else None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
