"""What an experiment has shown, in a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from polyroute.routing.experiments.evidence import ERRORS, FEEDBACK, FIRST_TOKEN, TOKENS, TOTAL
from polyroute.routing.experiments.findings import NEVER, ArmReport, Comparison, ShadowFindings
from polyroute.routing.experiments.mean import LEAST
from polyroute.routing.experiments.sample_ratio import LIMIT

UNITS: Final = {FIRST_TOKEN: "s", TOTAL: "s", TOKENS: "tokens"}
"""Units of metrics that have one."""


def summary(
    route: str,
    log_e: float,
    arms: Sequence[ArmReport],
    comparisons: Sequence[Comparison],
    shadows: Sequence[ShadowFindings] = (),
) -> str:
    """One sentence that says what matters most."""
    if not arms and shadows:
        return "; ".join(map(_mirrored, shadows)) + "."
    if log_e >= LIMIT:
        return "Traffic was not split as configured: find out why before you believe anything else here."
    if not any(arm.answers for arm in arms):
        return f"No answer of `{route}` has been recorded yet."
    if not comparisons:
        return "There is nothing to compare yet: one variant alone has answers."
    decided = [_said(comparison) for comparison in comparisons if comparison.decided]
    if decided:
        return "; ".join(decided) + "."
    nearest = min(comparisons, key=lambda comparison: comparison.needed)
    if all(min(each.variant_count, each.control_count) < LEAST for each in comparisons):
        return f"Nothing is decided yet: it takes {LEAST} answers of each variant before anything can be said."
    if nearest.needed >= NEVER:
        return "Nothing is decided yet, and nothing hints at a difference."
    return f"Nothing is decided yet: {name_of(nearest.metric)} is nearest, after about {nearest.needed:,} answers more."


def _mirrored(shadow: ShadowFindings) -> str:
    shares = (shadow.figures.get(f"{side}_failed") for side in ("copy", "caller", "both"))
    failed = round(shadow.pairs * sum(share.estimate for share in shares if share is not None))
    without = f", {failed:,} lack an answer since a side failed" if failed else ""
    return f"{shadow.exact_matches:,} of {shadow.pairs:,} pairs with `{shadow.deployment}` are equal{without}"


def _said(comparison: Comparison) -> str:
    interval, metric = comparison.interval, comparison.metric
    variant, control = f"`{comparison.variant}`", f"`{comparison.control}`"
    more = interval.estimate > 0
    unit = f" {UNITS[metric]}" if metric in UNITS else ""
    by = f"by {abs(interval.estimate):.3g}{unit}"
    if metric == ERRORS:
        points = abs(interval.estimate) * 100
        return f"{variant} fails {'more' if more else 'less'} often than {control}, by {points:.2g} points"
    if metric in (FIRST_TOKEN, TOTAL):
        what = "to begin" if metric == FIRST_TOKEN else "to finish"
        return f"{variant} takes {'longer' if more else 'less time'} {what} than {control}, {by}"
    return f"{name_of(metric)} is {'higher' if more else 'lower'} with {variant} than with {control}, {by}"


def name_of(metric: str) -> str:
    """A metric as people call it: callers' own by their own name."""
    return metric.removeprefix(FEEDBACK)
