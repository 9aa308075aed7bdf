"""A streamed answer, as it comes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import grpc

from polyroute.client.answers import Answer, Delta, Route, TokenLogprob, ToolCall
from polyroute.client.channel import raise_unless_cancelled
from polyroute.client.errors import ServerFault, from_rpc
from polyroute.client.wire import read
from polyroute.v1 import inference_pb2 as pb


class AnswerStream:
    """Iterates over the `Delta`s of one answer; afterwards `answer` is the whole of it.

    Leaving early cancels the call, and with it the work on the server: by `aclose`, at the end of `async with`, by
    cancelling the task, or by dropping the last reference. Reading raises a `RequestFailed`; a stream that has failed
    keeps the `text` that had come.
    """

    def __init__(self, call: Any, address: str) -> None:
        self._call = call
        self._address = address
        self._start: pb.GenerateStart | None = None
        self._answer: Answer | None = None
        self._closed = False
        self._parts: list[str] = []
        self._tool_calls: list[ToolCall] = []
        self._logprobs: list[TokenLogprob] = []

    @property
    def text(self) -> str:
        """The text that has come so far."""
        return "".join(self._parts)

    @property
    def route(self) -> Route | None:
        """How the request was routed; None before the first delta."""
        return None if self._start is None else read(Route, self._start.route)

    @property
    def request_id(self) -> str:
        """The request's ID; empty before the first delta."""
        return "" if self._start is None else self._start.request_id

    @property
    def answer(self) -> Answer:
        """The whole answer. Raises `RuntimeError` before the stream has ended."""
        if self._answer is None:
            raise RuntimeError("the answer is not complete: read the stream to its end first")
        return self._answer

    async def read(self) -> Answer:
        """Reads to the end and returns the whole answer."""
        async for _ in self:
            pass
        return self.answer

    async def aclose(self) -> None:
        """Cancels the call, unless it has ended."""
        self._closed = True
        self._call.cancel()

    def __del__(self) -> None:
        # gRPC's own call object outlives its last reference from outside while its loop runs.
        if not self._call.done():
            with contextlib.suppress(RuntimeError):  # the loop may have ended first, and the call with it
                self._call.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delta:
        while True:
            if self._answer is not None:
                raise StopAsyncIteration
            event: pb.GenerateEvent | Any = await self._next()
            kind = None if event is grpc.aio.EOF else event.WhichOneof("event")
            if (kind == "start") != (self._start is None) or event is grpc.aio.EOF:
                self._call.cancel()
                came = "its end" if event is grpc.aio.EOF else f"a {kind} event out of place"
                raise ServerFault(f"{self._address}: the stream broke the protocol: {came}", code="INTERNAL")
            if kind == "start":
                self._start = event.start
            elif kind == "delta":
                return self._delta(event.delta)
            elif kind == "end":
                await self._finish(event.end)

    async def _next(self) -> Any:
        try:
            return await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error, self._address) from error
        except asyncio.CancelledError:
            raise_unless_cancelled(
                "the stream was closed" if self._closed else "the client was closed during the answer"
            )
            raise

    def _delta(self, wire: pb.GenerateDelta) -> Delta:
        delta = Delta(
            wire.text,
            tuple(read(ToolCall, call) for call in wire.tool_calls),
            tuple(read(TokenLogprob, entry) for entry in wire.logprobs),
        )
        self._parts.append(delta.text)
        self._tool_calls += delta.tool_calls
        self._logprobs += delta.logprobs
        return delta

    async def _finish(self, end: pb.GenerateEnd) -> None:
        if (await self._next()) is not grpc.aio.EOF:  # the status follows the last event, and may still say no
            raise ServerFault(
                f"{self._address}: the stream broke the protocol: an event after its end", code="INTERNAL"
            )
        start = self._start
        if start is None:
            raise ServerFault(
                f"{self._address}: the stream broke the protocol: an end before its start", code="INTERNAL"
            )
        # What start and end say stands in the unary response under the same names.
        whole = pb.GenerateResponse(
            request_id=start.request_id,
            route=start.route,
            created=start.created if start.HasField("created") else None,
            finish_reason=end.finish_reason,
            usage=end.usage,
            timing=end.timing,
            matched_stop=end.matched_stop if end.HasField("matched_stop") else None,
            seed=end.seed if end.HasField("seed") else None,
        )
        self._answer = replace(
            read(Answer, whole),
            text=self.text,
            tool_calls=join_tool_calls(self._tool_calls),
            logprobs=tuple(self._logprobs),
        )


def join_tool_calls(parts: Iterable[ToolCall]) -> tuple[ToolCall, ...]:
    """The calls of an answer from their parts: arguments of equal index concatenate."""
    calls: dict[int, ToolCall] = {}
    for part in parts:
        known = calls.get(part.index, ToolCall("", "", "", part.index))
        calls[part.index] = ToolCall(
            known.id or part.id, known.name or part.name, known.arguments + part.arguments, part.index
        )
    return tuple(calls[index] for index in sorted(calls))
