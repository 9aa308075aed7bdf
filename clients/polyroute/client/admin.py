"""The client of the operator's calls, on the admin address."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from functools import cached_property
from types import TracebackType
from typing import Any, Self, Unpack

from polyroute.client.channel import CallOptions, Connection, Tls
from polyroute.client.models import ModelDescription
from polyroute.client.operations import CacheStats, ExperimentReport, Reloaded, Rollout, RunningConfig
from polyroute.client.request import duration, timestamp
from polyroute.client.wire import read
from polyroute.v1 import admin_pb2 as pb
from polyroute.v1.admin_pb2_grpc import AdminServiceStub

DEFAULT_ADMIN_PORT = 50052


class AdminClient:
    """Operates one server, over its admin address; arguments as those of `Client`.

    Calls that change something are not repeated when they fail.
    """

    def __init__(
        self,
        address: str = f"127.0.0.1:{DEFAULT_ADMIN_PORT}",
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
            default_port=DEFAULT_ADMIN_PORT,
        )

    @property
    def address(self) -> str:
        """The address that calls go to."""
        return str(self._connection.address)

    async def load(self, model: str, *, wait: bool = False, **call: Unpack[CallOptions]) -> ModelDescription:
        """Loads a model now; with `wait`, returns once it is warm or raises why it cannot be."""
        request = pb.LoadModelRequest(model=model, wait=wait)
        return read(ModelDescription, (await self._unary("LoadModel", request, call)).model)

    async def unload(
        self, model: str, *, grace_s: float | None = None, **call: Unpack[CallOptions]
    ) -> ModelDescription:
        """Lets a model finish its calls for up to `grace_s` seconds (None: the server's own), then frees its memory."""
        request = pb.UnloadModelRequest(model=model, grace=None if grace_s is None else duration(grace_s))
        return read(ModelDescription, (await self._unary("UnloadModel", request, call)).model)

    async def reload(self, *, dry_run: bool = False, **call: Unpack[CallOptions]) -> Reloaded:
        """Reads the configuration again and swaps it in; with `dry_run`, only says what is wrong with it."""
        return read(Reloaded, await self._unary("Reload", pb.ReloadRequest(dry_run=dry_run), call))

    async def config(self, *, defaults: bool = False, **call: Unpack[CallOptions]) -> RunningConfig:
        """The configuration in force, its secrets hidden; with `defaults`, what its file leaves out as well."""
        return read(RunningConfig, await self._unary("GetConfig", pb.GetConfigRequest(defaults=defaults), call))

    async def cache_stats(self, model: str = "", **call: Unpack[CallOptions]) -> CacheStats:
        """What the answer cache holds and how often it helped, of one model or of all."""
        return read(CacheStats, await self._unary("GetCacheStats", pb.GetCacheStatsRequest(model=model), call))

    async def cache_clear(self, model: str = "", *, key: str = "", **call: Unpack[CallOptions]) -> int:
        """Makes stored answers unreachable, of one model or of all, or the one of `key`; returns how many."""
        removed: int = (
            await self._unary("InvalidateCache", pb.InvalidateCacheRequest(model=model, key=key), call)
        ).removed
        return removed

    async def rollouts(self, *, page_size: int = 0, **call: Unpack[CallOptions]) -> AsyncIterator[Rollout]:
        """Every rollout by route, fetched in pages of `page_size` (0: the server's own)."""
        token = ""
        while True:
            page = await self._unary(
                "ListRollouts", pb.ListRolloutsRequest(page_size=page_size, page_token=token), call
            )
            for rollout in page.rollouts:
                yield read(Rollout, rollout)
            token = page.next_page_token
            if not token:
                return

    async def rollout(self, route: str, **call: Unpack[CallOptions]) -> Rollout:
        """One route's rollout, with its history."""
        return read(Rollout, (await self._unary("GetRollout", pb.GetRolloutRequest(route=route), call)).rollout)

    async def pause_rollout(self, route: str, *, reason: str = "", **call: Unpack[CallOptions]) -> Rollout:
        """Holds a rollout at its step; `reason` is kept in the history, here and below."""
        request = pb.PauseRolloutRequest(route=route, reason=reason)
        return read(Rollout, (await self._unary("PauseRollout", request, call)).rollout)

    async def resume_rollout(self, route: str, *, reason: str = "", **call: Unpack[CallOptions]) -> Rollout:
        """Lets a paused rollout go on."""
        request = pb.ResumeRolloutRequest(route=route, reason=reason)
        return read(Rollout, (await self._unary("ResumeRollout", request, call)).rollout)

    async def promote_rollout(self, route: str, *, reason: str = "", **call: Unpack[CallOptions]) -> Rollout:
        """Gives the new version all traffic, without further evidence."""
        request = pb.PromoteRolloutRequest(route=route, reason=reason)
        return read(Rollout, (await self._unary("PromoteRollout", request, call)).rollout)

    async def roll_back_rollout(self, route: str, *, reason: str = "", **call: Unpack[CallOptions]) -> Rollout:
        """Gives the old version all traffic."""
        request = pb.RollBackRolloutRequest(route=route, reason=reason)
        return read(Rollout, (await self._unary("RollBackRollout", request, call)).rollout)

    async def experiment_report(
        self, route: str, *, since: datetime | None = None, over_time: bool = False, **call: Unpack[CallOptions]
    ) -> ExperimentReport:
        """What a route's experiment has shown, from `since` on (aware of its time zone; None: all).

        With `over_time` the report's `series` say how the intervals stood meanwhile.
        """
        start = None if since is None else timestamp(since)
        request = pb.GetExperimentReportRequest(route=route, since=start, over_time=over_time)
        return read(ExperimentReport, await self._unary("GetExperimentReport", request, call))

    async def close(self) -> None:
        """Cancels what is in flight and closes the connection."""
        await self._connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _unary(self, method: str, request: object, call: CallOptions) -> Any:
        return await self._connection.unary(getattr(self._admin, method), request, call)

    @cached_property
    def _admin(self) -> Any:
        return AdminServiceStub(self._connection.channel)
