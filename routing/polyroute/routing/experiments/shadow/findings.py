"""What a route's shadows have shown: pure functions of what is summed up of their pairs."""

from __future__ import annotations

import math
from collections.abc import Iterable

from polyroute.routing.experiments import mean, proportion
from polyroute.routing.experiments.evidence import MISSING, RATIOS, Sum
from polyroute.routing.experiments.findings import ShadowFindings
from polyroute.routing.experiments.interval import Interval
from polyroute.routing.experiments.mean import Sample
from polyroute.routing.experiments.tally import Entry, Tally

_SHARES = ("exact", "same_finish", "copy_failed", "caller_failed", "both_failed")


def shadow_findings(tally: Tally, alpha: float) -> tuple[ShadowFindings, ...]:
    """One for each deployment that got copies, of its latest version alone."""
    deployments = sorted({entry.arm for entry in tally.shadows})
    return tuple(_of(deployment, tally, alpha) for deployment in deployments)


def _of(deployment: str, tally: Tally, alpha: float) -> ShadowFindings:
    mine = [entry for entry in tally.shadows if entry.arm == deployment]
    compared = [entry for entry in mine if not entry.metric.startswith(MISSING)]
    version = max((entry.last, entry.version) for entry in compared)[1] if compared else ""
    sums = _added(entry for entry in compared if entry.version == version)
    missing = _added(entry for entry in mine if entry.metric.startswith(MISSING))
    exact = sums.get("exact", Sum())
    distance = sums.get("edit_distance", Sum())
    return ShadowFindings(
        deployment=deployment,
        version=version,
        pairs=sums.get("copy_failed", Sum()).count,
        exact_matches=int(exact.total),
        mean_edit_distance=distance.total / distance.count if distance.count else 0.0,
        figures={name: _figure(name, each, alpha) for name, each in sorted(sums.items())},
        missing={name.removeprefix(MISSING): each.count for name, each in sorted(missing.items())},
        worst=tuple(worst for worst in tally.worst if worst.deployment == deployment),
    )


def _added(entries: Iterable[Entry]) -> dict[str, Sum]:
    sums: dict[str, Sum] = {}
    for entry in entries:
        sums.setdefault(entry.metric, Sum()).include(entry.sum)
    return sums


def _figure(name: str, of: Sum, alpha: float) -> Interval:
    if name in _SHARES:
        return proportion.interval(int(of.total), of.count, alpha)
    found = mean.interval(Sample.of_sums(of.count, of.total, of.squares), alpha)
    if name not in RATIOS:
        return found
    return Interval(math.exp(found.estimate), math.exp(found.lower), math.exp(min(found.upper, 700.0)))
