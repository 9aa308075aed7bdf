"""`polyroute.v1.AdminService`: operates a running server, on the admin address only."""

from __future__ import annotations

from typing import Any, NoReturn

import grpc.aio

from polyroute.core.errors import InvalidArgument, Unimplemented
from polyroute.routing.gateway import Gateway
from polyroute.server.reload import Reload
from polyroute.server.wire.cache import cache_stats_to_wire
from polyroute.server.wire.models import model_to_wire
from polyroute.server.wire.reload import reloaded_to_wire
from polyroute.server.wire.values import seconds_of
from polyroute.v1 import admin_pb2 as pb
from polyroute.v1.admin_pb2_grpc import AdminServiceServicer


class AdminService(AdminServiceServicer):
    """Acts on one gateway. `drain_timeout_s` is how long an unload waits for calls when it is not told."""

    def __init__(self, gateway: Gateway, reload: Reload, drain_timeout_s: float) -> None:
        self._gateway = gateway
        self._reload = reload
        self._drain_timeout_s = drain_timeout_s

    async def LoadModel(  # noqa: N802
        self, request: pb.LoadModelRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.LoadModelResponse:
        view = await self._gateway.load(_named(request.model), wait=request.wait)
        return pb.LoadModelResponse(model=model_to_wire(view))

    async def UnloadModel(  # noqa: N802
        self, request: pb.UnloadModelRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.UnloadModelResponse:
        grace_s = seconds_of(request.grace) if request.HasField("grace") else self._drain_timeout_s
        if grace_s < 0:
            raise InvalidArgument("grace", f"{grace_s:g} s; must be 0 or more")
        view = await self._gateway.unload(_named(request.model), grace_s)
        return pb.UnloadModelResponse(model=model_to_wire(view))

    async def GetCacheStats(  # noqa: N802
        self, request: pb.GetCacheStatsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.GetCacheStatsResponse:
        return cache_stats_to_wire(await self._gateway.cache_stats(request.model))

    async def InvalidateCache(  # noqa: N802
        self, request: pb.InvalidateCacheRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.InvalidateCacheResponse:
        return pb.InvalidateCacheResponse(removed=await self._gateway.invalidate_cache(request.model, request.key))

    async def Reload(  # noqa: N802
        self, request: pb.ReloadRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ReloadResponse:
        return reloaded_to_wire(await (self._reload.check() if request.dry_run else self._reload.reload("call")))

    async def ListRollouts(self, request: Any, context: Any) -> pb.ListRolloutsResponse:  # noqa: N802
        _no_experiments("ListRollouts")

    async def GetRollout(self, request: Any, context: Any) -> pb.GetRolloutResponse:  # noqa: N802
        _no_experiments("GetRollout")

    async def PauseRollout(self, request: Any, context: Any) -> pb.PauseRolloutResponse:  # noqa: N802
        _no_experiments("PauseRollout")

    async def ResumeRollout(self, request: Any, context: Any) -> pb.ResumeRolloutResponse:  # noqa: N802
        _no_experiments("ResumeRollout")

    async def PromoteRollout(self, request: Any, context: Any) -> pb.PromoteRolloutResponse:  # noqa: N802
        _no_experiments("PromoteRollout")

    async def RollBackRollout(self, request: Any, context: Any) -> pb.RollBackRolloutResponse:  # noqa: N802
        _no_experiments("RollBackRollout")

    async def GetExperimentReport(self, request: Any, context: Any) -> pb.GetExperimentReportResponse:  # noqa: N802
        _no_experiments("GetExperimentReport")


def _named(model: str) -> str:
    if not model:
        raise InvalidArgument("model", "must name a model")
    return model


def _no_experiments(method: str) -> NoReturn:
    raise Unimplemented(f"{method}: rollouts and experiments are not in this version")
