"""`polyroute.v1.InferenceService`: runs models."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
import grpc.aio

from polyroute.core.call import Call
from polyroute.core.errors import InvalidArgument
from polyroute.core.event import parts_of
from polyroute.core.request import Request
from polyroute.routing.gateway import Gateway
from polyroute.routing.streams import generator
from polyroute.server.answers import answer_to, answered
from polyroute.server.feedback import FeedbackIntake
from polyroute.server.patience import Patience
from polyroute.server.rpc.asked import Asked, Known, KnownRequests
from polyroute.server.rpc.boundary import Writing
from polyroute.server.rpc.calls import call_from, call_of
from polyroute.server.wire.again import whole_to_bytes
from polyroute.server.wire.answer import answer_to_wire, event_to_wire
from polyroute.server.wire.request import request_from_count, request_from_wire
from polyroute.server.wire.values import unix_of
from polyroute.v1 import inference_pb2 as pb
from polyroute.v1.inference_pb2_grpc import InferenceServiceServicer, add_InferenceServiceServicer_to_server


class InferenceService(InferenceServiceServicer):
    """Answers from one gateway; unary calls collect the same stream that streamed ones relay."""

    def __init__(self, gateway: Gateway, feedback: FeedbackIntake) -> None:
        self._gateway = gateway
        self._feedback = feedback
        self._known = KnownRequests(lambda: gateway.limits)

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serves it by gRPC: `Generate` takes and gives bytes, of which what comes again is not read and made again."""
        add_InferenceServiceServicer_to_server(self, server)
        generate: grpc.RpcMethodHandler[Any, Any] = grpc.unary_unary_rpc_method_handler(
            self._generate_bytes,
            self._known.read,
        )
        stream: grpc.RpcMethodHandler[Any, Any] = grpc.unary_stream_rpc_method_handler(
            Writing(self._write_events),
            pb.GenerateRequest.FromString,
            pb.GenerateEvent.SerializeToString,
        )
        name = pb.DESCRIPTOR.services_by_name["InferenceService"].full_name
        server.add_registered_method_handlers(name, {"Generate": generate, "StreamGenerate": stream})

    async def _generate_bytes(self, asked: Asked | Known, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        if isinstance(asked, Known):
            call = call_of(asked.worked, context, self._gateway.sticky_headers)
        else:
            call = self._generate(asked.wire, context)
        whole = self._gateway.at_hand(call)
        if whole is None:
            answer = await answered(self._gateway.generate(call))
            return answer_to_wire(answer, call.request_id).SerializeToString()
        if isinstance(asked, Asked) and call.worked is not None:
            self._known.keep(asked, call.worked)
        return whole_to_bytes(whole, call.request_id)

    async def Generate(  # noqa: N802
        self, request: pb.GenerateRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.GenerateResponse:
        call = self._generate(request, context)
        return answer_to_wire(await answer_to(call, self._gateway), call.request_id)

    async def StreamGenerate(  # noqa: N802
        self, request: pb.GenerateRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.GenerateEvent]:
        call = self._generate(request, context)
        sequence = 0
        async with aclosing(generator(self._gateway.generate(call))) as events:
            async for event in events:
                for part in parts_of(event):
                    yield event_to_wire(part, sequence, call.request_id)
                    sequence += 1

    async def _write_events(
        self, request: pb.GenerateRequest, context: grpc.aio.ServicerContext[Any, Any], patience: Patience
    ) -> None:
        """The same, written."""
        call = self._generate(request, context)
        del request  # a stream would hold it for as long as it is open
        sequence = 0
        async with aclosing(generator(self._gateway.generate(call))) as events:
            async for event in events:
                for part in parts_of(event):
                    await patience.write(context.write, event_to_wire(part, sequence, call.request_id))
                    sequence += 1

    async def CountTokens(  # noqa: N802
        self, request: pb.CountTokensRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.CountTokensResponse:
        asked = request_from_count(request, self._gateway.limits.max_messages)
        count = await self._gateway.count_tokens(self._call(asked, context))
        return pb.CountTokensResponse(
            prompt_tokens=count.prompt_tokens,
            context_length=count.context_length,
            model=count.model,
            version=count.version,
        )

    async def RecordFeedback(  # noqa: N802
        self, request: pb.RecordFeedbackRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.RecordFeedbackResponse:
        kind = request.WhichOneof("value")
        if kind is None:
            raise InvalidArgument("value", "set bool_value or number_value")
        value: bool | float = getattr(request, kind)
        observed = unix_of(request.observed) if request.HasField("observed") else None
        matched = await self._feedback.take(request.request_id, request.metric, value, observed)
        return pb.RecordFeedbackResponse(matched=matched)

    def _generate(self, request: pb.GenerateRequest, context: grpc.aio.ServicerContext[Any, Any]) -> Call:
        asked = request_from_wire(request, self._gateway.limits.max_messages)
        return self._call(asked, context)

    def _call(self, asked: Request, context: grpc.aio.ServicerContext[Any, Any]) -> Call:
        return call_from(asked, context, self._gateway.limits, self._gateway.sticky_headers)
