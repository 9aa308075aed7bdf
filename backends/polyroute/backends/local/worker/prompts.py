"""Turns a request's input into token IDs, or says why the model cannot take it."""

from __future__ import annotations

import json
from typing import Any, Literal

from jinja2 import TemplateError

from polyroute.backends.local.messages import Input
from polyroute.core.errors import clip
from polyroute.core.request import Message


class Refused(Exception):
    """The model cannot take the input; fields as in `messages.Rejected`."""

    def __init__(
        self, kind: Literal["too_long", "invalid", "unsupported"], field: str, message: str, *, quoted: str = ""
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.field = field
        self.message = message
        self.quoted = quoted


class PromptReader:
    """Reads inputs with a tokenizer of its own: it works in another thread than the engine, which decodes."""

    def __init__(self, tokenizer: Any, context_length: int) -> None:
        self._tokenizer = tokenizer
        self._context_length = context_length
        self._tools_known = "tools" in _templates(tokenizer)

    @property
    def chat(self) -> bool:
        """Whether the model has a chat template."""
        return bool(self._tokenizer.chat_template)

    def read(self, source: Input) -> list[int]:
        """Token IDs of `source`, at least one, with room for one more in the context; raises `Refused`."""
        tokens = self.count(source)
        field = "prompt" if source.messages is None else "messages"
        if self._context_length and len(tokens) + 1 > self._context_length:
            raise Refused(
                "too_long", field, f"{len(tokens)} tokens, but the model's context holds {self._context_length}"
            )
        return tokens

    def count(self, source: Input) -> list[int]:
        """Token IDs of `source`, at least one, however many; raises `Refused`."""
        if source.messages is None:
            tokens = self._tokenise(source.prompt or "", special=True)
            bos = self._tokenizer.bos_token_id
            if not tokens and bos is not None:
                tokens = [bos]
        else:
            tokens = self._tokenise(self._render(source), special=False)
        if not tokens:
            field = "prompt" if source.messages is None else "messages"
            raise Refused("invalid", field, "has no tokens for this model to start from")
        return tokens

    def _tokenise(self, text: str, *, special: bool) -> list[int]:
        encoded = self._tokenizer(
            text, add_special_tokens=special, truncation=False, verbose=False, return_attention_mask=False
        )
        return list(encoded["input_ids"])

    def _render(self, source: Input) -> str:
        if not self.chat:
            raise Refused("unsupported", "messages", "the model has no chat template; send a prompt")
        if source.tools and not self._tools_known:
            raise Refused("unsupported", "tools", "the model's chat template knows none")
        tools = [
            {"type": "function", "function": {"name": t.name, "description": t.description, "parameters": t.parameters}}
            for t in source.tools
        ]
        try:
            text: str = self._tokenizer.apply_chat_template(
                [_turn(message) for message in source.messages or ()],
                tools=tools or None,
                add_generation_prompt=True,
                tokenize=False,
            )
        except (TemplateError, TypeError, ValueError, LookupError, RecursionError) as error:
            why = clip(str(error), 200)  # a template's own words, into which it may put what it was given
            raise Refused(
                "invalid", "messages", f"the model's chat template refuses them: {why}", quoted=why
            ) from error
        return text


def _templates(tokenizer: Any) -> str:
    known = tokenizer.chat_template or ""
    return known if isinstance(known, str) else "\n".join(known.values())


def _turn(message: Message) -> dict[str, Any]:
    """A message as chat templates want it, with the arguments of tool calls as objects."""
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        turn["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": _object(call.arguments)}}
            for call in message.tool_calls
        ]
    if message.tool_call_id:
        turn["tool_call_id"] = message.tool_call_id
    return turn


def _object(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
