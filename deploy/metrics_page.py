"""Writes docs/metrics.md out of `polyroute.core.telemetry`: `python -m deploy.metrics_page FILE`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from polyroute.core.telemetry import OTHER, Metric, metrics

_HEAD: Final = f"""\
# Metrics

`GET /metrics` on the HTTP address, as Prometheus text; as OpenMetrics, with exemplars that carry the IDs of recorded
traces, where `Accept` asks for it; with `?name[]=...`, given once or more, the samples of these names alone. This page
is generated from `core/telemetry.py` by `make dashboards`.

Names that begin with `gen_ai_` are OpenTelemetry's for generative AI, with its attributes and buckets, as Prometheus
spells them. Labels never hold users, sessions, prompts or traces. A name that is no model or route is counted as
`{OTHER}`, so that callers cannot make series; the series of a model that leaves end. `model` and `deployment` are both
IDs of models: the one of answers and engines, the other of permits and attempts. `python_*` and `process_*` are the
Prometheus client's own.

[`deploy/prometheus`](../deploy/prometheus) has a scrape configuration, recording rules and alerts,
[`deploy/grafana`](../deploy/grafana) dashboards, and the [runbook](runbook.md) says what to do.
`docker compose --profile watch up` starts all of it. `polyroute top` follows each model in a terminal.

A model of one replica that has answered, has been cached and has failed makes some 230 series, nearly all of them
buckets; each further replica makes some 27. A scrape of 100 such models takes 0.5 s, of 1,000 some 4 s
([measured](../benchmarks/README.md#metrics)): scrape those more seldom.

| metric | kind | labels | meaning |
|---|---|---|---|
"""


def page() -> str:
    """The whole page."""
    rows = "".join(f"{_row(metric)}\n" for metric in metrics())
    bounds = "".join(
        f"- `{m.name}`: {', '.join(f'{bound:g}' for bound in m.buckets)}\n" for m in metrics() if m.buckets
    )
    return f"{_HEAD}{rows}\n## Buckets\n\n{bounds}"


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{metric.exposed}` | {metric.kind} | {labels} | {metric.help} |"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page())
