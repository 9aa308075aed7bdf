"""What `/v1/chat/completions` reads beside the fields that both of OpenAI's endpoints have."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from msgspec.structs import replace
from pydantic import Field

from polyroute.core.errors import InvalidArgument
from polyroute.core.request import Json, Message, Request, ResponseFormat, Tool, ToolCall
from polyroute.server.rest.asked import Asked
from polyroute.server.rest.dialect import HEADERS, Dialect
from polyroute.server.rest.json_body import Body
from polyroute.server.rest.openai_bodies import OPENAI_NAMES, OpenAIOptions, schema_format

CHAT = Dialect(
    (
        *OPENAI_NAMES,
        (r"logprobs", "top_logprobs"),
        (r"response_format\.json_schema", "response_format.json_schema.schema"),
        (r"tools\[(\d+)\]\.(name|description|parameters)", r"tools[\1].function.\2"),
        (r"messages\[(\d+)\]\.tool_calls\[(\d+)\]\.(name|arguments)", r"messages[\1].tool_calls[\2].function.\3"),
        *HEADERS,
    )
)
CHAT_COMPLETION_TOKENS = Dialect((*CHAT.pairs, (r"max_tokens", "max_completion_tokens")))


class TextPart(Body):
    """A part of a message's content; only text is served."""

    type: Literal["text"]
    text: str


class CalledFunction(Body):
    """What an assistant message called."""

    name: str
    arguments: str


class MessageToolCall(Body):
    """One tool call of an assistant message."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = Field(None, description="Without effect: the order counts.")


class ChatMessage(Body):
    """One turn. The fields that must be null are those that OpenAI's answers carry along."""

    role: str = Field(description="`system` (or `developer`), `user`, `assistant` or `tool`.")
    content: str | list[TextPart] | None = None
    tool_calls: list[MessageToolCall] | None = None
    tool_call_id: str | None = None
    name: None = None
    refusal: None = None
    audio: None = None
    function_call: None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None

    def message(self, i: int) -> Message:
        """The router's message; `i` is its place."""
        if self.content is None and not self.tool_calls:
            raise InvalidArgument(f"messages[{i}].content", "is required where there are no tool_calls")
        content = self.content or ""
        return Message(
            role="system" if self.role == "developer" else self.role,
            content=content if isinstance(content, str) else "".join(part.text for part in content),
            tool_calls=tuple(
                ToolCall(c.id, c.function.name, c.function.arguments, j) for j, c in enumerate(self.tool_calls or ())
            ),
            tool_call_id=self.tool_call_id or "",
        )


class Function(Body):
    """A function that the model may ask the caller to run."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = Field(None, description="JSON schema of the arguments.")
    strict: Literal[False] | None = Field(None, description="Arguments are not constrained to the schema.")


class ChatTool(Body):
    """A tool; only functions are served."""

    type: Literal["function"]
    function: Function


class ChosenFunction(Body):
    """The name of a tool."""

    name: str


class ToolChoice(Body):
    """The tool that must be called."""

    type: Literal["function"]
    function: ChosenFunction


class NamedSchema(Body):
    """A JSON schema with a name, as OpenAI has it."""

    name: str | None = Field(None, description="Without effect.")
    description: str | None = Field(None, description="Without effect.")
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = Field(None, description="Without effect: the schema always holds.")


class TextFormat(Body):
    """No constraint."""

    type: Literal["text"]


class JsonObjectFormat(Body):
    """Any JSON object."""

    type: Literal["json_object"]


class JsonSchemaFormat(Body):
    """JSON of the given schema."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


Format: TypeAlias = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]


class ChatBody(OpenAIOptions):
    """A conversation, rendered by the model's chat template."""

    # Mapped.
    messages: list[ChatMessage]
    max_completion_tokens: int | None = Field(None, description="As `max_tokens`, which it replaces.")
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, description="Alternatives a token; needs `logprobs`.")
    response_format: Format | None = None
    tools: list[ChatTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None

    # Passed on to an OpenAI-compatible peer as they are; a model that cannot honour them says so.
    parallel_tool_calls: bool | None = Field(None, description="false is passed on; true is the default.")
    reasoning_effort: str | None = None
    verbosity: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    # Null, or the one value that changes nothing: another would change the answer in a way that is not served.
    modalities: list[Literal["text"]] | None = None
    audio: None = None
    prediction: None = None
    functions: None = None
    function_call: None = None
    web_search_options: None = None

    def request(self) -> Request:
        """The router's request; raises `InvalidArgument`."""
        if self.top_logprobs is not None and not self.logprobs:
            raise InvalidArgument("top_logprobs", "needs `logprobs` to be true")
        made = self.common(self._max_tokens(), (self.top_logprobs or 0) if self.logprobs else None)
        return replace(
            made,
            messages=tuple(message.message(i) for i, message in enumerate(self.messages)),
            response_format=self._format(made.response_format),
            tools=tuple(
                Tool(t.function.name, t.function.description or "", t.function.parameters or {})
                for t in self.tools or ()
            ),
            tool_choice=self.tool_choice.function.name
            if isinstance(self.tool_choice, ToolChoice)
            else self.tool_choice or "",
        )

    def asked(self) -> Asked:
        """The same, and how it is to be answered; raises `InvalidArgument`."""
        return Asked(
            self.request(),
            CHAT if self.max_completion_tokens is None else CHAT_COMPLETION_TOKENS,
            stream=bool(self.stream),
            with_usage=self.wants_usage,
            with_logprobs=bool(self.logprobs),
        )

    def passed_on(self) -> dict[str, Json]:
        passed: dict[str, Json] = {**super().passed_on()}
        if self.parallel_tool_calls is False:
            passed["parallel_tool_calls"] = False
        for field in ("reasoning_effort", "verbosity", "chat_template_kwargs"):
            if (value := getattr(self, field)) is not None:
                passed[field] = value
        return passed

    def _max_tokens(self) -> int | None:
        old, new = self.max_tokens, self.max_completion_tokens
        if old is not None and new is not None and old != new:
            raise InvalidArgument("max_completion_tokens", f"{new}, but max_tokens is {old}; give one of them")
        return old if new is None else new

    def _format(self, structured: ResponseFormat | None) -> ResponseFormat | None:
        match self.response_format:
            case JsonSchemaFormat(json_schema=named):
                wanted = schema_format(named.schema_)
            case JsonObjectFormat():
                wanted = ResponseFormat("json_schema", '{"type":"object"}')
            case _:
                return structured
        if structured is not None:
            raise InvalidArgument("structured_outputs", "give one of response_format and structured_outputs")
        return wanted
