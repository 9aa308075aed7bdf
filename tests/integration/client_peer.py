"""A real gRPC server whose answers a test writes beforehand, for the client's tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from polyroute.v1 import admin_pb2, inference_pb2, models_pb2
from polyroute.v1.admin_pb2_grpc import AdminServiceServicer, add_AdminServiceServicer_to_server
from polyroute.v1.inference_pb2_grpc import InferenceServiceServicer, add_InferenceServiceServicer_to_server
from polyroute.v1.models_pb2_grpc import ModelServiceServicer, add_ModelServiceServicer_to_server

LIMIT_S = 60.0
ROUTE = inference_pb2.Route(requested="demo", model="demo", version="v1", cache=inference_pb2.CACHE_RESULT_MISS)


@dataclass(frozen=True, slots=True)
class Failure:
    """A status to answer with, and what comes with it."""

    code: grpc.StatusCode
    message: str = "no"
    reason: str = ""
    pushback_ms: int | None = None
    retry_after_s: int | None = None
    field: str = ""

    def trailers(self) -> list[tuple[str, str | bytes]]:
        details: list[Message] = []
        if self.reason:
            details.append(ErrorInfo(reason=self.reason, domain="polyroute"))
        if self.retry_after_s is not None:
            details.append(RetryInfo(retry_delay=Duration(seconds=self.retry_after_s)))
        if self.field:
            details.append(BadRequest(field_violations=[{"field": self.field, "description": self.message}]))
        status = Status(code=self.code.value[0], message=self.message)
        for detail in details:
            packed = Packed()
            packed.Pack(detail)
            status.details.append(packed)
        trailers: list[tuple[str, str | bytes]] = [("grpc-status-details-bin", status.SerializeToString())]
        if self.pushback_ms is not None:
            trailers.append(("grpc-retry-pushback-ms", str(self.pushback_ms)))
        return trailers


@dataclass
class Peer(InferenceServiceServicer, ModelServiceServicer, AdminServiceServicer):
    """Answers with `deltas`, after `failures`; then, where `endless`, goes on until the caller leaves."""

    deltas: Sequence[str] = ("Paris", ".")
    failures: list[Failure] = field(default_factory=list)
    late_failure: Failure | None = None
    endless: bool = False
    models: Sequence[models_pb2.Model] = (models_pb2.Model(id="demo", state=models_pb2.MODEL_STATE_WARM),)
    address: str = ""
    calls: list[tuple[str, Any, dict[str, Any], float | None]] = field(default_factory=list)
    streaming: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    def requests(self, method: str) -> list[Any]:
        """The requests of a method that came, oldest first."""
        return [request for name, request, _, _ in self.calls if name == method]

    async def _begin(self, method: str, request: Any, context: Any) -> None:
        self.calls.append((method, request, dict(context.invocation_metadata()), context.time_remaining()))
        if self.failures:
            await self._fail(self.failures.pop(0), context)

    async def _fail(self, failure: Failure, context: Any) -> None:
        context.set_trailing_metadata(failure.trailers())
        await context.abort(failure.code, failure.message)

    async def _forever(self) -> None:
        self.streaming.set()
        try:
            await asyncio.Event().wait()
        except BaseException:
            self.cancelled.set()
            raise

    async def Generate(self, request: Any, context: Any) -> Any:
        await self._begin("Generate", request, context)
        if self.endless:
            await self._forever()
        response = inference_pb2.GenerateResponse(
            text="".join(self.deltas),
            finish_reason=inference_pb2.FINISH_REASON_STOP,
            route=ROUTE,
            usage=inference_pb2.Usage(prompt_tokens=3, completion_tokens=len(self.deltas)),
            request_id=request.request_id or "made",
        )
        response.created.GetCurrentTime()
        return response

    async def StreamGenerate(self, request: Any, context: Any) -> AsyncIterator[Any]:
        await self._begin("StreamGenerate", request, context)
        start = inference_pb2.GenerateStart(request_id=request.request_id or "made", route=ROUTE)
        yield inference_pb2.GenerateEvent(start=start)
        for text in self.deltas:
            yield inference_pb2.GenerateEvent(delta=inference_pb2.GenerateDelta(text=text))
        if self.late_failure is not None:
            await self._fail(self.late_failure, context)
        if self.endless:
            await self._forever()
        usage = inference_pb2.Usage(prompt_tokens=3, completion_tokens=len(self.deltas))
        end = inference_pb2.GenerateEnd(finish_reason=inference_pb2.FINISH_REASON_STOP, usage=usage, seed=7)
        yield inference_pb2.GenerateEvent(end=end)

    async def CountTokens(self, request: Any, context: Any) -> Any:
        await self._begin("CountTokens", request, context)
        return inference_pb2.CountTokensResponse(prompt_tokens=5, context_length=8192, model="demo", version="v1")

    async def RecordFeedback(self, request: Any, context: Any) -> Any:
        await self._begin("RecordFeedback", request, context)
        return inference_pb2.RecordFeedbackResponse(matched=True)

    async def ListModels(self, request: Any, context: Any) -> Any:
        await self._begin("ListModels", request, context)
        at = int(request.page_token or 0)
        size = request.page_size or 100
        following = str(at + size) if at + size < len(self.models) else ""
        return models_pb2.ListModelsResponse(models=self.models[at : at + size], next_page_token=following)

    async def GetModel(self, request: Any, context: Any) -> Any:
        await self._begin("GetModel", request, context)
        return models_pb2.GetModelResponse(model=self.models[0])

    async def ExplainRoute(self, request: Any, context: Any) -> Any:
        await self._begin("ExplainRoute", request, context)
        attempt = models_pb2.PlannedAttempt(deployment="demo", model="demo", state=models_pb2.MODEL_STATE_WARM)
        return models_pb2.ExplainRouteResponse(requested="demo", attempts=[attempt], reasons=["it is the default"])

    async def LoadModel(self, request: Any, context: Any) -> Any:
        await self._begin("LoadModel", request, context)
        return admin_pb2.LoadModelResponse(model=self.models[0])

    async def UnloadModel(self, request: Any, context: Any) -> Any:
        await self._begin("UnloadModel", request, context)
        return admin_pb2.UnloadModelResponse(model=self.models[0])

    async def Reload(self, request: Any, context: Any) -> Any:
        await self._begin("Reload", request, context)
        problem = admin_pb2.ConfigProblem(file="models.yaml", line=3, path="models[0].id", message="is missing")
        return admin_pb2.ReloadResponse(problems=[problem] if request.dry_run else [], added=["new"], changed=True)

    async def GetConfig(self, request: Any, context: Any) -> Any:
        await self._begin("GetConfig", request, context)
        problem = admin_pb2.ConfigProblem(file="models.yaml", line=3, path="models[0].id", message="is missing")
        last = admin_pb2.LastReload(trigger="SIGHUP", outcome=admin_pb2.ReloadResponse(problems=[problem]))
        return admin_pb2.GetConfigResponse(
            yaml="models:\n- id: demo\n", config_hash="beef", file="/etc/models.yaml", last_reload=last
        )

    async def GetCacheStats(self, request: Any, context: Any) -> Any:
        await self._begin("GetCacheStats", request, context)
        return admin_pb2.GetCacheStatsResponse(
            tiers=[admin_pb2.CacheTier(name="disk", entries=4, bytes=100, max_bytes=200, location="/cache")],
            models=[
                admin_pb2.CacheModelStats(
                    model="demo",
                    hits=2,
                    misses=6,
                    saved_time=Duration(seconds=1, nanos=500_000_000),
                    tiers=[admin_pb2.CacheModelTier(name="disk", entries=3, bytes=2048, hits=2)],
                    semantic=admin_pb2.CacheSemanticStats(
                        mode=admin_pb2.SEMANTIC_MODE_MEASURE, threshold=0.95, lookups=10, near=4, compared=4, agreed=1
                    ),
                )
            ],
        )

    async def InvalidateCache(self, request: Any, context: Any) -> Any:
        await self._begin("InvalidateCache", request, context)
        return admin_pb2.InvalidateCacheResponse(removed=4)

    async def _rollout(self, method: str, request: Any, context: Any) -> admin_pb2.Rollout:
        await self._begin(method, request, context)
        step = admin_pb2.RolloutStep(weight=0.1)
        rollout = admin_pb2.Rollout(route="chat", to="new", state=admin_pb2.ROLLOUT_STATE_RUNNING, steps=[step])
        setattr(rollout, "from", "old")
        return rollout

    async def ListRollouts(self, request: Any, context: Any) -> Any:
        return admin_pb2.ListRolloutsResponse(rollouts=[await self._rollout("ListRollouts", request, context)])

    async def GetRollout(self, request: Any, context: Any) -> Any:
        return admin_pb2.GetRolloutResponse(rollout=await self._rollout("GetRollout", request, context))

    async def PauseRollout(self, request: Any, context: Any) -> Any:
        return admin_pb2.PauseRolloutResponse(rollout=await self._rollout("PauseRollout", request, context))

    async def ResumeRollout(self, request: Any, context: Any) -> Any:
        return admin_pb2.ResumeRolloutResponse(rollout=await self._rollout("ResumeRollout", request, context))

    async def PromoteRollout(self, request: Any, context: Any) -> Any:
        return admin_pb2.PromoteRolloutResponse(rollout=await self._rollout("PromoteRollout", request, context))

    async def RollBackRollout(self, request: Any, context: Any) -> Any:
        return admin_pb2.RollBackRolloutResponse(rollout=await self._rollout("RollBackRollout", request, context))

    async def GetExperimentReport(self, request: Any, context: Any) -> Any:
        await self._begin("GetExperimentReport", request, context)
        return admin_pb2.GetExperimentReportResponse(route=request.route, summary="No difference yet.")


@asynccontextmanager
async def serving(
    peer: Peer, *, address: str = "127.0.0.1:0", credentials: grpc.ServerCredentials | None = None
) -> AsyncIterator[Peer]:
    """Serves `peer` while the block runs; `peer.address` says where."""
    server = grpc.aio.server(
        options=[
            ("grpc.so_reuseport", 0),
            ("grpc.http2.min_ping_interval_without_data_ms", 500),
            ("grpc.max_receive_message_length", 64 * 2**20),
        ]
    )
    add_InferenceServiceServicer_to_server(peer, server)
    add_ModelServiceServicer_to_server(peer, server)
    add_AdminServiceServicer_to_server(peer, server)
    port = server.add_insecure_port(address) if credentials is None else server.add_secure_port(address, credentials)
    peer.address = address if address.startswith("unix:") else f"127.0.0.1:{port}"
    await server.start()
    try:
        yield peer
    finally:
        await server.stop(None)
