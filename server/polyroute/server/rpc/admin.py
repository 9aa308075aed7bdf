"""`polyroute.v1.AdminService`: operates a running server, from the admin address and from the console."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc.aio

from polyroute.core.errors import InvalidArgument, NotFound, Unimplemented, clip
from polyroute.routing.experiments.reporting import Reporting
from polyroute.routing.experiments.rollout.decision import Action
from polyroute.routing.experiments.rollout.rollouts import Rollouts
from polyroute.routing.gateway import Gateway
from polyroute.routing.views import CacheStats
from polyroute.server.reload import Reload
from polyroute.server.rpc.models import page_size, read_token, write_token
from polyroute.server.wire.cache import cache_stats_to_wire
from polyroute.server.wire.config import config_to_wire, shown
from polyroute.server.wire.experiment import report_to_wire
from polyroute.server.wire.models import model_to_wire
from polyroute.server.wire.reload import reloaded_to_wire
from polyroute.server.wire.rollouts import rollout_to_wire
from polyroute.server.wire.values import seconds_of, unix_of
from polyroute.v1 import admin_pb2 as pb
from polyroute.v1.admin_pb2_grpc import AdminServiceServicer


class AdminService(AdminServiceServicer):
    """Acts on one gateway. `drain_timeout_s` is how long an unload waits for calls when it is not told.

    `rollouts` are those of the gateway, None where there can be none; `reporting` is None where no records are kept of
    experiments. `cache_stats` stands in for the gateway's, where other processes have a part in them.
    """

    def __init__(
        self,
        gateway: Gateway,
        reload: Reload,
        drain_timeout_s: float,
        *,
        rollouts: Rollouts | None = None,
        reporting: Reporting | None = None,
        cache_stats: Callable[[str], Awaitable[CacheStats]] | None = None,
    ) -> None:
        self._cache_stats = cache_stats or gateway.cache_stats
        self._reporting = reporting
        self._gateway = gateway
        self._reload = reload
        self._drain_timeout_s = drain_timeout_s
        self._rollouts = rollouts

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
        return cache_stats_to_wire(await self._cache_stats(request.model))

    async def InvalidateCache(  # noqa: N802
        self, request: pb.InvalidateCacheRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.InvalidateCacheResponse:
        return pb.InvalidateCacheResponse(removed=await self._gateway.invalidate_cache(request.model, request.key))

    async def Reload(  # noqa: N802
        self, request: pb.ReloadRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ReloadResponse:
        return reloaded_to_wire(await (self._reload.check() if request.dry_run else self._reload.reload("call")))

    async def GetConfig(  # noqa: N802
        self, request: pb.GetConfigRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.GetConfigResponse:
        text = await asyncio.to_thread(shown, self._reload.config, defaults=request.defaults)
        return config_to_wire(self._reload, text)

    async def ListRollouts(  # noqa: N802
        self, request: pb.ListRolloutsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ListRolloutsResponse:
        size, after = page_size(request.page_size), read_token(request.page_token)
        views = [] if self._rollouts is None else await self._rollouts.views(after, size + 1)
        page = views[:size]
        following = write_token(page[-1].route) if len(views) > size else ""
        return pb.ListRolloutsResponse(rollouts=map(rollout_to_wire, page), next_page_token=following)

    async def GetRollout(  # noqa: N802
        self, request: pb.GetRolloutRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.GetRolloutResponse:
        view = await self._found(request.route).view(request.route)
        return pb.GetRolloutResponse(rollout=rollout_to_wire(view))

    async def PauseRollout(  # noqa: N802
        self, request: pb.PauseRolloutRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.PauseRolloutResponse:
        return pb.PauseRolloutResponse(rollout=await self._steer(Action.PAUSE, request.route, request.reason))

    async def ResumeRollout(  # noqa: N802
        self, request: pb.ResumeRolloutRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ResumeRolloutResponse:
        return pb.ResumeRolloutResponse(rollout=await self._steer(Action.RESUME, request.route, request.reason))

    async def PromoteRollout(  # noqa: N802
        self, request: pb.PromoteRolloutRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.PromoteRolloutResponse:
        return pb.PromoteRolloutResponse(rollout=await self._steer(Action.PROMOTE, request.route, request.reason))

    async def RollBackRollout(  # noqa: N802
        self, request: pb.RollBackRolloutRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.RollBackRolloutResponse:
        return pb.RollBackRolloutResponse(rollout=await self._steer(Action.ROLL_BACK, request.route, request.reason))

    async def _steer(self, action: Action, route: str, reason: str) -> pb.Rollout:
        view = await self._found(route).ask(self._gateway, route, action, reason, "operator")
        return rollout_to_wire(view)

    def _found(self, route: str) -> Rollouts:
        if not route:
            raise InvalidArgument("route", "must name a route")
        if self._rollouts is None:
            raise NotFound("rollout", route, f"route: `{clip(route, 200)}` has no rollout")
        return self._rollouts

    async def GetExperimentReport(  # noqa: N802
        self, request: pb.GetExperimentReportRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.GetExperimentReportResponse:
        if not request.route:
            raise InvalidArgument("route", "must name a route")
        if self._reporting is None:
            raise Unimplemented("GetExperimentReport: this server keeps no records of experiments")
        since = unix_of(request.since) if request.HasField("since") else 0.0
        return report_to_wire(await self._reporting.of(request.route, since, over_time=request.over_time))


def _named(model: str) -> str:
    if not model:
        raise InvalidArgument("model", "must name a model")
    return model
