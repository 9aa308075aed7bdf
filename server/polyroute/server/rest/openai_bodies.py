"""What OpenAI's two endpoints read, field by field: mapped, passed on, accepted without effect, or refused.

A field that is not listed here is refused by name, so that nothing that would change an answer is ignored.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from msgspec.structs import replace
from pydantic import Field

from polyroute.core.errors import InvalidArgument
from polyroute.core.request import Json, Request, ResponseFormat, RoutingOptions, Sampling
from polyroute.server.rest.asked import Asked
from polyroute.server.rest.bodies import Stops, stops
from polyroute.server.rest.dialect import HEADERS, Dialect
from polyroute.server.rest.json_body import Body

OPENAI_NAMES = (
    (r"routing\.user", "user"),
    (r"routing\.affinity_key", "prompt_cache_key"),
    (r"labels", "metadata"),
    (r"labels\.(.+)", r"metadata.\1"),
    (r"response_format\.(regex|choice)", r"structured_outputs.\1"),
)
"""Pattern of a field's path in the router's request: its path in both of OpenAI's shapes."""

COMPLETION = Dialect((*OPENAI_NAMES, (r"response_format\.json_schema", "structured_outputs.json"), *HEADERS))


class StreamOptions(Body):
    """What a stream should hold beside the answer."""

    include_usage: bool | None = Field(None, description="A last chunk with the usage.")
    include_obfuscation: bool | None = Field(None, description="Without effect: nothing is padded.")


class StructuredOutputs(Body):
    """A constraint on the answer as vLLM has it; exactly one."""

    json_: dict[str, Any] | None = Field(None, alias="json")
    regex: str | None = None
    choice: list[str] | None = None

    def format(self) -> ResponseFormat:
        """The constraint; raises `InvalidArgument` where there is not exactly one."""
        given: list[ResponseFormat] = []
        if self.json_ is not None:
            given.append(schema_format(self.json_))
        if self.regex is not None:
            given.append(ResponseFormat("regex", self.regex))
        if self.choice is not None:
            given.append(ResponseFormat("choice", tuple(self.choice)))
        if len(given) != 1:
            raise InvalidArgument("structured_outputs", "give exactly one of json, regex and choice")
        return given[0]


def schema_format(schema: dict[str, Any]) -> ResponseFormat:
    """The constraint to a JSON schema; its whole numbers may be of any length, as in JSON."""
    return ResponseFormat("json_schema", json.dumps(schema, ensure_ascii=False, separators=(",", ":")))


class OpenAIOptions(Body):
    """The fields that both endpoints have."""

    # Mapped to fields of the router's request.
    model: str | None = Field(None, description="Model ID or route; absent: the server's default.")
    max_tokens: int | None = None
    temperature: float | None = Field(None, description="0 is greedy; absent: the model's own default.")
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    stop: Stops | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = Field(None, description="The end user: keeps a user on one variant.")
    safety_identifier: str | None = Field(None, description="As `user`, which it replaces.")
    prompt_cache_key: str | None = Field(None, description="Calls of equal key prefer the same replica.")
    metadata: dict[str, str] | None = Field(None, description="Labels, for records and spans.")

    # As vLLM has them.
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    structured_outputs: StructuredOutputs | None = None

    # Passed on to an OpenAI-compatible peer as they are; a model that cannot honour them says so.
    logit_bias: dict[str, float] | None = None

    # One value only: another would change the answer in a way that is not served.
    n: Literal[1] | None = None

    # Accepted without effect: they concern OpenAI's own service and not the answer.
    store: bool | None = Field(None, description="Without effect.")
    service_tier: str | None = Field(None, description="Without effect.")
    prompt_cache_retention: str | None = Field(None, description="Without effect.")

    def common(self, sampling_max: int | None, logprobs: int | None) -> Request:
        """The router's request as far as both endpoints make it alike."""
        if self.stream_options is not None and not self.stream:
            raise InvalidArgument("stream_options", "is possible with `stream` only")
        return Request(
            model=self.model or "",
            sampling=Sampling(
                max_tokens=sampling_max,
                temperature=self.temperature,
                top_p=self.top_p,
                top_k=self.top_k,
                min_p=self.min_p,
                repetition_penalty=self.repetition_penalty,
                presence_penalty=self.presence_penalty,
                frequency_penalty=self.frequency_penalty,
                seed=self.seed,
                logprobs=logprobs,
            ),
            stop=stops(self.stop),
            response_format=None if self.structured_outputs is None else self.structured_outputs.format(),
            extra=self.passed_on(),
            routing=RoutingOptions(
                user=self.user or self.safety_identifier or "", affinity_key=self.prompt_cache_key or ""
            ),
            labels=self.metadata or {},
        )

    def passed_on(self) -> dict[str, Json]:
        """What goes to a peer as it is."""
        return {"logit_bias": dict(self.logit_bias)} if self.logit_bias else {}

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with its usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)


class CompletionBody(OpenAIOptions):
    """One prompt, continued as it stands."""

    prompt: str | list[str] = Field(description="One text, or a list of one.")
    logprobs: int | None = Field(None, description="Return log probabilities, with this many alternatives a token.")

    # One value only.
    best_of: Literal[1] | None = None
    echo: Literal[False] | None = None
    suffix: None = None

    def request(self) -> Request:
        """The router's request; raises `InvalidArgument`."""
        prompt = self.prompt
        if isinstance(prompt, list):
            if len(prompt) != 1:
                raise InvalidArgument("prompt", f"{len(prompt)} prompts; one at a time, or POST /v1/generate/batch")
            prompt = prompt[0]
        return replace(self.common(self.max_tokens, self.logprobs), prompt=prompt)

    def asked(self) -> Asked:
        """The same, and how it is to be answered; raises `InvalidArgument`."""
        return Asked(
            self.request(),
            COMPLETION,
            stream=bool(self.stream),
            with_usage=self.wants_usage,
            with_logprobs=self.logprobs is not None,
        )
