"""Reads the answers of OpenAI-compatible peers: chat and plain completions, streamed or whole.

Sources: OpenAI API reference ("chat.completion.chunk" and the completion object); vLLM adds `stop_reason`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from polyroute.backends.remote import shape
from polyroute.backends.remote.dialect import AnsweredError, Malformed
from polyroute.backends.remote.openai_chunk import ChunkUsage, chunk_of
from polyroute.backends.remote.openai_logprobs import token_logprobs
from polyroute.backends.remote.openai_run import texts_of_run
from polyroute.core.event import Finished, FinishReason, Token, Usage
from polyroute.core.request import ToolCall

_FINISH = {
    "stop": FinishReason.STOP,
    "eos": FinishReason.STOP,
    "eos_token": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP_SEQUENCE,
    "length": FinishReason.LENGTH,
    "max_tokens": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
}
_DONE = b"[DONE]"
_BROKEN_OFF = ("abort", "aborted", "error", "cancelled")
_MANY = 5  # chunks, from which on it is worth while to look for what they have in common
_UNLIKE = 4  # times that they had too little, after which it is not looked for any more
_MOST_TOOL_CALLS = 2**16  # more than any model makes, and far less than the wire's index holds


class OpenAIAnswer:
    """The reader of one answer; see `polyroute.backends.remote.dialect.AnswerReader`.

    A model's reasoning, which some peers send beside the answer, sets `begun` and is not part of the answer.
    """

    def __init__(self, seed: int | None) -> None:
        self.begun = False
        self.done = False
        self._seed = seed
        self._reason: FinishReason | None = None
        self._matched_stop: str | None = None
        self._usage = Usage()
        self._unlike = 0

    def texts(self, events: Sequence[bytes]) -> list[str]:
        """Takes chunks of the commonest kinds, and `[DONE]`, and gives their texts."""
        texts: list[str] = []
        many = len(events) >= _MANY and self._unlike < _UNLIKE
        for data in events:
            if data == _DONE:
                self.done = True
                texts.append("")
                break
            chunk = chunk_of(data)
            if chunk is None:
                break
            text = ""
            for choice in chunk.choices:
                reason = choice.finish_reason
                if reason:
                    if reason in _BROKEN_OFF:
                        return texts
                    self._end(reason, choice.stop_reason, choice.matched_stop)
                text = (choice.delta.content if choice.delta is not None else None) or choice.text or ""
                if text or reason:
                    self.begun = True
            if chunk.usage is not None:
                self._usage = _counted(chunk.usage)
            texts.append(text)
            if many and text:
                many = False
                run = texts_of_run(data, events[len(texts) :])
                if run:
                    texts += run
                    return texts + self.texts(events[len(texts) :])
                self._unlike += 1
        return texts

    def event(self, name: bytes, data: bytes) -> Iterator[Token]:
        """Takes one chunk; `[DONE]` ends the stream."""
        if data == _DONE:
            self.done = True
            return
        chunk = shape.parse(data)
        if name == b"error":
            raise AnsweredError(shape.told_error(chunk))
        yield from self._chunk(chunk, "delta")

    def whole(self, body: bytes) -> Iterator[Token]:
        """Takes a whole completion."""
        answer = shape.parse(body)
        if not answer.get("choices") and not answer.get("error"):
            raise Malformed("has no `choices`")
        yield from self._chunk(answer, "message")
        self.done = True

    def finished(self) -> Finished:
        """The end; an answer without a `finish_reason` is not whole, even after `[DONE]`."""
        if self._reason is None:
            raise Malformed("ended without a `finish_reason`")
        return Finished(self._reason, usage=self._usage, matched_stop=self._matched_stop, seed=self._seed)

    def _chunk(self, chunk: Mapping[str, Any], part: str) -> Iterator[Token]:
        if chunk.get("error"):
            raise AnsweredError(shape.told_error(chunk))
        usage = shape.section(chunk, "usage")
        if usage:
            self._usage = _usage(usage)
        for item in shape.items(chunk, "choices"):
            choice = shape.mapping(item, "choices")
            if shape.count(choice, "index") == 0:
                yield from self._choice(choice, part)

    def _choice(self, choice: Mapping[str, Any], part: str) -> Iterator[Token]:
        said = shape.section(choice, part)
        text = shape.text(said, "content") or shape.text(said, "refusal") or shape.text(choice, "text")
        calls = tuple(_tool_call(item, place) for place, item in enumerate(shape.items(said, "tool_calls")))
        logprobs = token_logprobs(shape.section(choice, "logprobs"))
        reason = shape.text(choice, "finish_reason")
        if text or calls or logprobs:
            self.begun = True
            yield Token(text, calls, logprobs)
        elif reason or said.get("reasoning_content") or said.get("reasoning"):
            self.begun = True
        if reason:
            if reason in _BROKEN_OFF:
                raise AnsweredError(f"the answer was broken off: {reason}")
            self._end(reason, choice.get("stop_reason"), choice.get("matched_stop"))

    def _end(self, reason: str, *stops: object) -> None:
        self._reason = _FINISH.get(reason, FinishReason.UNSPECIFIED)
        for stop in stops:
            if isinstance(stop, str) and stop and self._reason in (FinishReason.STOP, FinishReason.STOP_SEQUENCE):
                self._reason, self._matched_stop = FinishReason.STOP_SEQUENCE, stop
                return  # a number is the ID of a token, and the model's own end


def _counted(usage: ChunkUsage) -> Usage:
    details = usage.prompt_tokens_details
    cached = None if details is None else details.cached_tokens
    return Usage(usage.prompt_tokens, usage.completion_tokens or 0, cached or 0)


def _usage(usage: Mapping[str, Any]) -> Usage:
    details = shape.section(usage, "prompt_tokens_details")
    return Usage(
        prompt_tokens=shape.count(usage, "prompt_tokens"),
        completion_tokens=shape.count(usage, "completion_tokens"),
        cached_prompt_tokens=shape.count(details, "cached_tokens"),
    )


def _tool_call(item: Any, place: int) -> ToolCall:
    call = shape.mapping(item, "tool_calls")
    function = shape.section(call, "function")
    index = place if call.get("index") is None else shape.count(call, "index")
    if index > _MOST_TOOL_CALLS:
        raise Malformed(f"numbers a tool call {index}")
    return ToolCall(
        id=shape.text(call, "id"),
        name=shape.text(function, "name"),
        arguments=shape.text(function, "arguments"),
        index=index,
    )
