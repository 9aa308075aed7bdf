"""Reports on the experiments of a running router."""

from __future__ import annotations

from functools import partial
from typing import Final

from polyroute.core.errors import InvalidArgument
from polyroute.routing.experiments.findings import Arm, Report
from polyroute.routing.experiments.journal import Journal
from polyroute.routing.experiments.report import report
from polyroute.routing.experiments.tally import tally
from polyroute.routing.gateway import Gateway

MOST_POINTS: Final = 100
"""Stretches of time that a report over time is divided into, at most."""


class Reporting:
    """Reads the journal's database for reports on the routes of a gateway."""

    def __init__(self, gateway: Gateway, journal: Journal) -> None:
        self._gateway = gateway
        self._journal = journal

    async def of(self, route: str, since: float = 0.0, *, over_time: bool = False) -> Report:
        """The report on a route, of what was recorded from about `since` on (Unix time).

        Raises `UnknownModel`, `InvalidArgument` where the route is no experiment, and `StateUnavailable`.
        """
        rule = self._gateway.snapshot.resolve(route)
        if not rule.control_variant.name and not rule.shadows:
            raise InvalidArgument("route", f"`{rule.id}` has neither variants nor shadows, and so is no experiment")
        arms = [Arm(variant.name, variant.deployment, rule.share(variant)) for variant in rule.variants if variant.name]
        await self._journal.flush()
        points = MOST_POINTS if over_time else 0
        found = await self._journal.database.read(partial(tally, route=rule.id, since=since, points=points))
        return report(rule.id, arms, rule.control_variant.name, found)
