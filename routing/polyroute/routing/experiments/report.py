"""What an experiment has shown: a pure function of what is summed up of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from polyroute.routing.experiments import mean, proportion
from polyroute.routing.experiments.evidence import ASSIGNED, ERRORS, FIRST_TOKEN, PINNED, TOKENS, TOTAL
from polyroute.routing.experiments.findings import Arm, ArmReport, Comparison, Estimate, Point, Report, Series
from polyroute.routing.experiments.interval import Interval, log_mean_exp
from polyroute.routing.experiments.mean import Sample
from polyroute.routing.experiments.sample_ratio import LIMIT, log_e_mismatch
from polyroute.routing.experiments.shadow.findings import shadow_findings
from polyroute.routing.experiments.tally import Entry, Tally
from polyroute.routing.experiments.weighted import Weighted
from polyroute.routing.experiments.wording import UNITS, summary

ALPHA: Final = 0.05
"""Each interval holds the truth at every look at once with 95% probability, by itself."""

GUARDRAILS: Final = (ERRORS, FIRST_TOKEN, TOTAL)
"""Metrics that must not get worse: for all of them less is better."""

_ORDER: Final = (ERRORS, FIRST_TOKEN, TOTAL, TOKENS)


def report(route: str, arms: Sequence[Arm], control: str, tally: Tally) -> Report:
    """The report on `route` with the variants that it has now, compared with `control`.

    The split is checked first (`experiments.sample_ratio`). Where shares changed while an arm was observed, each
    observation counts inversely to the share that it was drawn with (`experiments.weighted`), so that a change of the
    times is not taken for one of the variants.
    """
    log_e = mismatch(tally)
    versions = {arm.name: _latest(arm.name, tally.entries) for arm in arms}
    samples = {arm.name: _samples(arm.name, versions[arm.name], tally.entries, tally.shares) for arm in arms}
    arm_reports = tuple(_arm(arm, versions[arm.name], samples[arm.name]) for arm in arms)
    comparisons = tuple(
        _compared(metric, arm.name, control, samples[arm.name][metric], samples[control][metric])
        for arm in arms
        if arm.name != control
        for metric in _in_order(samples[arm.name])
        if metric in samples[control]
    )
    shadows = shadow_findings(tally, ALPHA)
    return Report(
        route=route,
        summary=summary(route, log_e, arm_reports, comparisons, shadows),
        split_ok=log_e < LIMIT,
        log_e_mismatch=log_e,
        arms=arm_reports,
        comparisons=comparisons,
        notes=tuple(_notes(arms, versions, tally)),
        series=tuple(_series(arms, versions, tally)),
        shadows=shadows,
        pinned=tuple(found for arm in arms if (found := _pinned(arm, tally)) is not None),
    )


def mismatch(tally: Tally) -> float:
    """The logarithm of the e-value against "every key fell to a variant with that one's share", over all splits."""
    counts: dict[str, dict[str, int]] = {}
    for entry in tally.entries:
        if entry.metric == ASSIGNED and entry.split in tally.shares:
            by_arm = counts.setdefault(entry.split, {})
            by_arm[entry.arm] = by_arm.get(entry.arm, 0) + entry.sum.count
    log_e = 0.0
    for split, by_arm in counts.items():
        names = sorted(tally.shares[split])
        shares = [tally.shares[split][name] for name in names]
        total = math.fsum(shares)
        log_e += log_e_mismatch([by_arm.get(name, 0) for name in names], [share / total for share in shares])
    return log_e


@dataclass(frozen=True, slots=True)
class _Observations:
    """One metric of one arm. `binary` where every observation is 0 or 1; `successes` is their number where besides
    shares never changed, else None."""

    sample: Sample
    binary: bool
    successes: int | None = None

    def interval(self) -> Interval:
        if self.successes is not None:
            return proportion.interval(self.successes, self.sample.count, ALPHA)
        found = mean.interval(self.sample, ALPHA)
        return found.within(0.0, 1.0) if self.binary else found


def _samples(
    arm: str, version: str, entries: Iterable[Entry], shares: Mapping[str, Mapping[str, float]]
) -> dict[str, _Observations]:
    by_metric: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.arm == arm and entry.version == version and entry.metric != ASSIGNED:
            by_metric.setdefault(entry.metric, []).append(entry)
    return {metric: _observations(arm, found, shares) for metric, found in by_metric.items()}


def _observations(arm: str, entries: list[Entry], shares: Mapping[str, Mapping[str, float]]) -> _Observations:
    count = sum(entry.sum.count for entry in entries)
    total = math.fsum(entry.sum.total for entry in entries)
    squares = math.fsum(entry.sum.squares for entry in entries)
    binary = total == squares and total == int(total)  # nothing but yes and no
    drawn_with = {shares.get(entry.split, {}).get(arm, 0.0) for entry in entries}
    if len(drawn_with) == 1 or 0.0 in drawn_with:
        if binary:
            return _Observations(Sample.of_successes(int(total), count), True, int(total))
        return _Observations(Sample.of_sums(count, total, squares), False)
    weighted = Weighted()
    for entry in entries:
        w = 1 / shares[entry.split][arm]
        n, t, s = entry.sum.count, entry.sum.total, entry.sum.squares
        weighted += Weighted(n, w * n, w * w * n, w * t, w * w * t, w * w * s)
    return _Observations(weighted.sample_of_successes if binary else weighted.sample, binary)


def _arm(arm: Arm, version: str, samples: Mapping[str, _Observations]) -> ArmReport:
    estimates = tuple(
        Estimate(metric, UNITS.get(metric, "1"), samples[metric].interval(), samples[metric].sample.count)
        for metric in _in_order(samples)
    )
    answers = samples[ERRORS].sample.count if ERRORS in samples else 0
    return ArmReport(arm.name, arm.model, version, arm.share, answers, estimates)


def _pinned(arm: Arm, tally: Tally) -> ArmReport | None:
    """What callers said of the arm whom chance had not given it: no share divides them, and none is compared."""
    mine = [entry for entry in tally.entries if entry.arm == PINNED + arm.name]
    if not mine:
        return None
    _, version = max((entry.last, entry.version) for entry in mine)
    found = _arm(arm, version, _samples(PINNED + arm.name, version, mine, {}))
    return replace(found, answers=max(estimate.count for estimate in found.estimates))


def _compared(metric: str, variant: str, control: str, new: _Observations, old: _Observations) -> Comparison:
    interval = mean.difference(new.sample, old.sample, ALPHA)
    if new.binary and old.binary:
        interval = interval.within(-1.0, 1.0)
    decided = 0.0 not in interval
    sides = [mean.log_e_positive(new.sample, old.sample), mean.log_e_positive(old.sample, new.sample)]
    return Comparison(
        metric=metric,
        variant=variant,
        control=control,
        interval=interval,
        log_e=log_mean_exp(sides),
        guardrail=metric in GUARDRAILS,
        variant_count=new.sample.count,
        control_count=old.sample.count,
        needed=0 if decided else mean.needed(new.sample, old.sample, ALPHA),
    )


def _latest(arm: str, entries: Iterable[Entry]) -> str:
    """The version that an arm was seen with last. A call that failed before its version was known tells of none."""
    seen = [(entry.last, entry.version) for entry in entries if entry.arm == arm and entry.metric in (ERRORS, ASSIGNED)]
    return max((entry for entry in seen if entry[1]), default=(0.0, ""))[1]


def _in_order(metrics: Iterable[str]) -> list[str]:
    """Guardrails first, then what callers thought."""
    return sorted(metrics, key=lambda metric: (_ORDER.index(metric) if metric in _ORDER else len(_ORDER), metric))


def _notes(arms: Sequence[Arm], versions: Mapping[str, str], tally: Tally) -> Iterable[str]:
    for arm in arms:
        others: dict[str, int] = {}
        for entry in tally.entries:
            if entry.arm == arm.name and entry.metric == ERRORS and entry.version != versions[arm.name]:
                others[entry.version] = others.get(entry.version, 0) + entry.sum.count
        for version, count in sorted(others.items()):
            calls = f"{count} call{'' if count == 1 else 's'}"
            which = f"of version `{version}`" if version else "from before its version was known"
            yield f"`{arm.name}` also had {calls} {which}, not counted here"
    for held in ("(holdout)", "(layer)"):
        count = sum(e.sum.count for e in tally.entries if e.arm == held and e.metric == ERRORS)
        if count:
            yield f"{count} answers went to callers that are kept out of the experiment {held}"
    if len({entry.split for entry in tally.entries if not entry.arm.startswith("(")}) > 1:
        yield "shares changed meanwhile: each answer counts inversely to the share that it was drawn with"


def _series(arms: Sequence[Arm], versions: Mapping[str, str], tally: Tally) -> Iterable[Series]:
    moments = sorted({entry.until for entry in tally.over_time})
    for arm in arms:
        mine = [e for e in tally.over_time if e.arm == arm.name and e.version == versions[arm.name]]
        for metric in _in_order({e.metric for e in mine} - {ASSIGNED}):
            of_metric = [entry for entry in mine if entry.metric == metric]
            points = []
            for moment in moments:
                seen = [entry for entry in of_metric if entry.until <= moment]
                if seen:
                    known = _observations(arm.name, seen, tally.shares)
                    points.append(Point(moment, known.interval(), known.sample.count))
            yield Series(arm.name, metric, tuple(points))
