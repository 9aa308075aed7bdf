"""What fronts are told of the deployments: how local models are, and what the other processes do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from polyroute.core.backend import BackendStatus
from polyroute.routing.gateway import Gateway
from polyroute.server.fronts.front_link import FrontLink
from polyroute.server.fronts.messages.life import Stand, Standing

_At: TypeAlias = tuple[int, int, tuple[int, ...]]
"""Calls that wait for a permit, the limit, and the calls that each front has in flight."""


class Standings:
    """Compares how everything stands with how it stood when it was looked at last."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._at: Mapping[str, _At] = {}
        self._local: Mapping[str, BackendStatus] = {}

    def everything(self) -> Stand:
        """How everything stands, for a front that begins, or that is to know of what has just come into force.

        What others have in flight, all are told with the next news.
        """
        self._at = {}
        return Stand({id: Standing(0, *at[:2]) for id, at in self._look(()).items()}, self._statuses())

    def news(self, fronts: Sequence[FrontLink]) -> list[Stand]:
        """For each front what has changed since this was asked last; nothing for all where nothing has."""
        before, self._at = self._at, self._look(fronts)
        local_before, self._local = self._local, self._statuses()
        changed = {id: at for id, at in self._at.items() if before.get(id) != at}
        local = {id: status for id, status in self._local.items() if local_before.get(id) != status}
        if not (changed or local):
            return []
        return [Stand(_for(place, changed), local) for place in range(len(fronts))]

    def _look(self, fronts: Sequence[FrontLink]) -> dict[str, _At]:
        found: dict[str, _At] = {}
        for id, deployment in self._gateway.snapshot.deployments.items():
            permits = deployment.permits
            here = tuple(sum(of.values()) if (of := front.here.get(id)) else 0 for front in fronts)
            found[id] = (permits.queued, permits.max_concurrency, here)
        return found

    def _statuses(self) -> dict[str, BackendStatus]:
        deployments = self._gateway.snapshot.deployments.items()
        return {id: deployment.backend.status() for id, deployment in deployments if deployment.local}


def _for(place: int, changed: Mapping[str, _At]) -> dict[str, Standing]:
    return {id: Standing(sum(here) - here[place], queued, limit) for id, (queued, limit, here) in changed.items()}
