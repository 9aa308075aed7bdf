"""What OpenAI's two endpoints answer: the shapes, and the parts that both have."""

from __future__ import annotations

from typing import Literal, NotRequired, TypeAlias

from typing_extensions import TypedDict

from polyroute.core.event import FinishReason, TokenLogprob, TopLogprob, Usage
from polyroute.core.request import ToolCall

Finish: TypeAlias = Literal["stop", "length", "content_filter", "tool_calls"]

FINISH: dict[FinishReason, Finish] = {
    FinishReason.UNSPECIFIED: "stop",
    FinishReason.STOP: "stop",
    FinishReason.STOP_SEQUENCE: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.CONTENT_FILTER: "content_filter",
    FinishReason.TOOL_CALLS: "tool_calls",
}
"""`finish_reason` of each reason; `stop_reason` tells a stop string from the model's own end."""


class PromptDetails(TypedDict):
    """Of the prompt's tokens, those that were not computed again."""

    cached_tokens: int


class OpenAIUsage(TypedDict):
    """Tokens read and written."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


class Alternative(TypedDict):
    """One of the most likely tokens at a place; `bytes` are its own, for it may be part of a character."""

    token: str
    logprob: float
    bytes: list[int]


class ChatLogprob(Alternative):
    """One generated token, and the most likely ones in its place."""

    top_logprobs: list[Alternative]


class ChatLogprobs(TypedDict):
    """Log probabilities of an answer's tokens."""

    content: list[ChatLogprob]
    refusal: None


class CompletionLogprobs(TypedDict):
    """The same as `/v1/completions` has it: lists of equal length."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class CalledFunction(TypedDict):
    """The function and its arguments as JSON text; in a stream, the arguments concatenate."""

    name: NotRequired[str]
    arguments: str


class AnswerToolCall(TypedDict):
    """A tool that the model calls; in a stream `index` says which one a part belongs to."""

    index: NotRequired[int]
    id: NotRequired[str]
    type: NotRequired[Literal["function"]]
    function: CalledFunction


class AssistantMessage(TypedDict):
    """What the model said."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    tool_calls: NotRequired[list[AnswerToolCall]]


class ChatChoice(TypedDict):
    """The answer. `stop_reason` is the stop string that ended it, as vLLM has it."""

    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None
    finish_reason: Finish
    stop_reason: str | None


class ChatAnswer(TypedDict):
    """Answer of `/v1/chat/completions`. `system_fingerprint` is the model's version."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: OpenAIUsage
    system_fingerprint: str | None


class ChatDelta(TypedDict):
    """A part of the answer."""

    role: NotRequired[Literal["assistant"]]
    content: NotRequired[str]
    tool_calls: NotRequired[list[AnswerToolCall]]


class ChatChunkChoice(TypedDict):
    """A part of the answer; the last one has its `finish_reason`."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None
    finish_reason: Finish | None
    stop_reason: NotRequired[str | None]


class ChatChunk(TypedDict):
    """One event of a streamed chat completion."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChatChunkChoice]
    usage: NotRequired[OpenAIUsage | None]
    system_fingerprint: str | None


class CompletionChoice(TypedDict):
    """The answer, or a part of it."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Finish | None
    stop_reason: str | None


class CompletionAnswer(TypedDict):
    """Answer of `/v1/completions`, and one event of it where it is streamed."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: NotRequired[OpenAIUsage | None]
    system_fingerprint: str | None


def usage(used: Usage) -> OpenAIUsage:
    """Tokens read and written."""
    return {
        "prompt_tokens": used.prompt_tokens,
        "completion_tokens": used.completion_tokens,
        "total_tokens": used.prompt_tokens + used.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": used.cached_prompt_tokens},
    }


def chat_logprobs(tokens: tuple[TokenLogprob, ...]) -> ChatLogprobs:
    """Log probabilities as chat completions have them."""
    content: list[ChatLogprob] = [{**_alternative(t), "top_logprobs": [_alternative(a) for a in t.top]} for t in tokens]
    return {"content": content, "refusal": None}


def completion_logprobs(tokens: tuple[TokenLogprob, ...], offset: int) -> CompletionLogprobs:
    """Log probabilities as completions have them; `offset` is where the first token begins, in characters."""
    offsets: list[int] = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.token)
    return {
        "tokens": [t.token for t in tokens],
        "token_logprobs": [t.logprob for t in tokens],
        "top_logprobs": [{a.token: a.logprob for a in reversed(t.top)} for t in tokens],
        "text_offset": offsets,
    }


def whole_tool_call(call: ToolCall) -> AnswerToolCall:
    """A tool call of a whole answer."""
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def part_of_tool_call(part: ToolCall) -> AnswerToolCall:
    """A part of a tool call: only the first part of each has its ID and name."""
    told: AnswerToolCall = {"index": part.index, "function": {"arguments": part.arguments}}
    if part.id:
        told["id"] = part.id
    if part.name:
        told["type"] = "function"
        told["function"]["name"] = part.name
    return told


def _alternative(token: TokenLogprob | TopLogprob) -> Alternative:
    return {"token": token.token, "logprob": token.logprob, "bytes": list(token.token_bytes)}
