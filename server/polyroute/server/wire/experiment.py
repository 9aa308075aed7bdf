"""Reports of experiments in wire form."""

from __future__ import annotations

import math

from google.protobuf.struct_pb2 import Struct

from polyroute.routing.experiments.findings import ArmReport, Comparison, Report, Series, ShadowFindings
from polyroute.routing.experiments.interval import Interval
from polyroute.routing.experiments.tally import Worst
from polyroute.routing.experiments.wording import name_of
from polyroute.server.wire.values import timestamp
from polyroute.v1 import admin_pb2 as pb

_LARGEST_LOG = math.log(1e300)


def report_to_wire(report: Report) -> pb.GetExperimentReportResponse:
    """A whole report. E-values beyond 1e300 are said to be that."""
    return pb.GetExperimentReportResponse(
        route=report.route,
        summary=report.summary,
        sample_ratio=pb.SampleRatioCheck(ok=report.split_ok, e_value=_e_value(report.log_e_mismatch)),
        variants=[_arm(arm) for arm in report.arms],
        comparisons=[_comparison(comparison) for comparison in report.comparisons],
        shadows=[_shadow(shadow) for shadow in report.shadows],
        notes=report.notes,
        series=[_series(series) for series in report.series],
        pinned=[_arm(arm) for arm in report.pinned],
    )


def _arm(arm: ArmReport) -> pb.VariantReport:
    return pb.VariantReport(
        name=arm.name,
        model=arm.model,
        version=arm.version,
        samples=arm.answers,
        expected_share=arm.share,
        metrics=[
            pb.MetricEstimate(
                metric=name_of(estimate.metric),
                unit=estimate.unit,
                value=estimate.interval.estimate,
                lower=estimate.interval.lower,
                upper=estimate.interval.upper,
                samples=estimate.count,
            )
            for estimate in arm.estimates
        ],
    )


def _comparison(comparison: Comparison) -> pb.Comparison:
    return pb.Comparison(
        variant=comparison.variant,
        control=comparison.control,
        evidence=pb.Evidence(
            metric=name_of(comparison.metric),
            difference=comparison.interval.estimate,
            lower=comparison.interval.lower,
            upper=comparison.interval.upper,
            e_value=_e_value(comparison.log_e),
            samples_from=comparison.control_count,
            samples_to=comparison.variant_count,
        ),
        guardrail=comparison.guardrail,
        samples_needed=comparison.needed,
    )


def _shadow(shadow: ShadowFindings) -> pb.ShadowReport:
    """The figures in a structure, each with its interval, and the worst pairs, with their texts where those are kept.

    An end that is infinite is null.
    """
    figures = Struct()
    figures.update(
        {
            "version": shadow.version,
            **{name: _interval(interval) for name, interval in shadow.figures.items()},
            "worst": [_worst(worst) for worst in shadow.worst],
        }
    )
    return pb.ShadowReport(
        deployment=shadow.deployment,
        pairs=shadow.pairs,
        exact_matches=shadow.exact_matches,
        mean_edit_distance=shadow.mean_edit_distance,
        missing=shadow.missing,
        figures=figures,
    )


def _worst(worst: Worst) -> dict[str, str | float]:
    told: dict[str, str | float] = {"pair_id": worst.pair_id, "request_id": worst.request_id}
    told["edit_distance"] = worst.edit_distance
    texts = {"prompt": worst.prompt, "caller_text": worst.caller_text, "copy_text": worst.copy_text}
    return told | (texts if any(texts.values()) else {})


def _interval(interval: Interval) -> dict[str, float | None]:
    ends = {"value": interval.estimate, "lower": interval.lower, "upper": interval.upper}
    return {name: end if math.isfinite(end) and end < 1e300 else None for name, end in ends.items()}


def _series(series: Series) -> pb.MetricSeries:
    return pb.MetricSeries(
        variant=series.variant,
        metric=name_of(series.metric),
        points=[
            pb.MetricPoint(
                time=timestamp(point.at),
                value=point.interval.estimate,
                lower=point.interval.lower,
                upper=point.interval.upper,
                samples=point.count,
            )
            for point in series.points
        ],
    )


def _e_value(log_e: float) -> float:
    return math.exp(min(log_e, _LARGEST_LOG))
