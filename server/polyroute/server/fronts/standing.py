"""What fronts are told of the deployments: how local models are, and what the other processes do."""

from __future__ import annotations

from typing import TypeAlias
from weakref import WeakKeyDictionary

from polyroute.core.backend import BackendStatus
from polyroute.routing.gateway import Gateway
from polyroute.server.fronts.front_link import FrontLink
from polyroute.server.fronts.messages import Stand, Standing

_Told: TypeAlias = tuple[dict[str, Standing], dict[str, BackendStatus]]


class Standings:
    """Compares how everything stands with what each front was told last."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._told: WeakKeyDictionary[FrontLink, _Told] = WeakKeyDictionary()

    def all_for(self, front: FrontLink) -> Stand:
        """Everything, for a front that is to know of what has just come into force."""
        self._told.pop(front, None)
        return self.news_for(front, ()) or Stand({}, {})

    def news_for(self, front: FrontLink, fronts: tuple[FrontLink, ...] | list[FrontLink]) -> Stand | None:
        """What has changed for `front`, one of `fronts`; None where nothing has."""
        before, local_before = self._told.get(front, ({}, {}))
        now, local = {}, {}
        for id, deployment in self._gateway.snapshot.deployments.items():
            permits = deployment.permits
            elsewhere = sum(sum(other.here.get(id, {}).values()) for other in fronts if other is not front)
            now[id] = Standing(elsewhere, permits.queued, permits.max_concurrency)
            if deployment.local:
                local[id] = deployment.backend.status()
        self._told[front] = (now, local)
        news = {id: standing for id, standing in now.items() if before.get(id) != standing}
        local_news = {id: status for id, status in local.items() if local_before.get(id) != status}
        return Stand(news, local_news) if news or local_news else None
