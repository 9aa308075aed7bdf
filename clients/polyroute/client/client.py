"""The client of the calls that every service makes: answers, models, plans and feedback."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from types import TracebackType
from typing import Any, Self, Unpack

from polyroute.client.address import DEFAULT_PORT
from polyroute.client.answers import Answer, TokenCount
from polyroute.client.channel import CallOptions, Connection, Tls
from polyroute.client.models import ModelDescription, Plan
from polyroute.client.request import GenerateOptions, Prompt, Tool, build_request, set_input, timestamp, wire_tools
from polyroute.client.stream import AnswerStream
from polyroute.client.wire import read
from polyroute.v1 import inference_pb2, models_pb2
from polyroute.v1.inference_pb2_grpc import InferenceServiceStub
from polyroute.v1.models_pb2_grpc import ModelServiceStub


class Client:
    """Calls one server, over one connection that is opened at the first call and shared by all.

    `address` is `host:port`, `https://host`, `unix:/path` or `dns:///name:port` (calls are then spread over every
    address of the name). `tls` secures it, with `Tls(...)` or, for the system's authorities, True; it follows from
    `https://`. `token` is sent as a bearer token. `timeout` is the default deadline of a call in seconds; None waits as
    long as it takes. `retries` (0 to 4) is how often a call that came to nothing (UNAVAILABLE, RESOURCE_EXHAUSTED) is
    repeated, after the delay that the server asks for; a stream only before its first event. A connection on which a
    call waits is tested after `keepalive_s` of silence. Raises `ValueError` for arguments that make no sense.

    Use it in `async with`, or call `close` when done. One client serves any number of tasks of one event loop.
    """

    def __init__(
        self,
        address: str = f"127.0.0.1:{DEFAULT_PORT}",
        *,
        tls: Tls | bool | None = None,
        token: str | None = None,
        timeout: float | None = None,
        retries: int = 3,
        keepalive_s: float = 60.0,
        max_message_bytes: int = 64 * 2**20,
    ) -> None:
        self._connection = Connection(
            address,
            tls=tls,
            token=token,
            timeout=timeout,
            retries=retries,
            keepalive_s=keepalive_s,
            max_message_bytes=max_message_bytes,
            default_port=DEFAULT_PORT,
        )

    @property
    def address(self) -> str:
        """The address that calls go to."""
        return str(self._connection.address)

    async def generate(
        self,
        prompt: Prompt,
        *,
        timeout: float | None = None,
        traceparent: str = "",
        metadata: Sequence[tuple[str, str]] = (),
        **options: Unpack[GenerateOptions],
    ) -> Answer:
        """One whole answer. Raises a `RequestFailed`; cancelling the task stops the work on the server."""
        call: CallOptions = {"timeout": timeout, "traceparent": traceparent, "metadata": metadata}
        response = await self._connection.unary(self._inference.Generate, build_request(prompt, options), call)
        return read(Answer, response)

    def stream(
        self,
        prompt: Prompt,
        *,
        timeout: float | None = None,
        traceparent: str = "",
        metadata: Sequence[tuple[str, str]] = (),
        **options: Unpack[GenerateOptions],
    ) -> AnswerStream:
        """One answer as it comes: iterate over its deltas, then read `.answer`."""
        call: CallOptions = {"timeout": timeout, "traceparent": traceparent, "metadata": metadata}
        request = build_request(prompt, options)
        return AnswerStream(self._connection.start(self._inference.StreamGenerate, request, call), self.address)

    async def count_tokens(
        self,
        prompt: Prompt,
        *,
        model: str = "",
        tools: Sequence[Tool | Mapping[str, Any]] = (),
        **call: Unpack[CallOptions],
    ) -> TokenCount:
        """Tokens that the input would occupy in the model's context; runs no model."""
        request = inference_pb2.CountTokensRequest(model=model, tools=wire_tools(tools))
        set_input(request, prompt)
        return read(TokenCount, await self._connection.unary(self._inference.CountTokens, request, call))

    async def models(self, *, page_size: int = 0, **call: Unpack[CallOptions]) -> AsyncIterator[ModelDescription]:
        """Every model and route by ID, fetched in pages of `page_size` (0: the server's own)."""
        token = ""
        while True:
            request = models_pb2.ListModelsRequest(page_size=page_size, page_token=token)
            page = await self._connection.unary(self._models.ListModels, request, call)
            for model in page.models:
                yield read(ModelDescription, model)
            token = page.next_page_token
            if not token:
                return

    async def model(self, name: str = "", **call: Unpack[CallOptions]) -> ModelDescription:
        """One model or route as it stands; the server's default when no name is given."""
        request = models_pb2.GetModelRequest(model=name)
        response = await self._connection.unary(self._models.GetModel, request, call)
        return read(ModelDescription, response.model)

    async def explain(
        self,
        prompt: Prompt,
        *,
        timeout: float | None = None,
        traceparent: str = "",
        metadata: Sequence[tuple[str, str]] = (),
        **options: Unpack[GenerateOptions],
    ) -> Plan:
        """The plan that the same request to `generate` would get, and why; runs nothing."""
        call: CallOptions = {"timeout": timeout, "traceparent": traceparent, "metadata": metadata}
        request = models_pb2.ExplainRouteRequest(request=build_request(prompt, options))
        return read(Plan, await self._connection.unary(self._models.ExplainRoute, request, call))

    async def record_feedback(
        self,
        request_id: str,
        metric: str,
        value: bool | float,
        *,
        observed: datetime | None = None,
        **call: Unpack[CallOptions],
    ) -> bool:
        """Records what a caller thought of an answer: a yes or no, or a number. Returns whether the request is known.

        `observed` must be aware of its time zone; None means now.
        """
        request = inference_pb2.RecordFeedbackRequest(request_id=request_id, metric=metric)
        if isinstance(value, bool):
            request.bool_value = value
        else:
            request.number_value = value
        if observed is not None:
            request.observed.CopyFrom(timestamp(observed))
        response = await self._connection.unary(self._inference.RecordFeedback, request, call)
        return bool(response.matched)

    async def close(self) -> None:
        """Cancels what is in flight and closes the connection."""
        await self._connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @cached_property
    def _inference(self) -> Any:
        return InferenceServiceStub(self._connection.channel)

    @cached_property
    def _models(self) -> Any:
        return ModelServiceStub(self._connection.channel)
