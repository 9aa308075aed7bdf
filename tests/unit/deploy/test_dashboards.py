"""What is generated is what the code generates, and names what there is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml
from deploy.dashboards.__main__ import DASHBOARDS, write
from deploy.metrics_page import page

from polyroute.core import telemetry
from tests.expressions import DEPLOY, panels

SHIPPED = DEPLOY / "grafana" / "dashboards"


def test_the_dashboards_are_those_of_the_code(tmp_path: Path) -> None:
    write(tmp_path)
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert made == {path.name: path.read_text() for path in SHIPPED.iterdir()}, "run `make dashboards`"


def test_the_page_of_metrics_is_that_of_the_code() -> None:
    assert (DEPLOY.parent / "docs" / "metrics.md").read_text() == page(), "run `make dashboards`"


def test_every_dashboard_is_whole() -> None:
    for name in DASHBOARDS:
        dashboard = json.loads((SHIPPED / f"{name}.json").read_text())
        assert dashboard["uid"] == f"polyroute-{name}"
        shown = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
        assert len(shown) >= 6
        for panel in shown:
            assert panel["title"]
            assert panel["description"].endswith(".")
            assert panel["fieldConfig"]["defaults"]["unit"]
            assert panel["datasource"]["uid"] == "${datasource}"


def test_panels_ask_for_metrics_that_there_are() -> None:
    ends = ("", "_bucket", "_sum", "_count")
    known = {metric.exposed + end for metric in telemetry.metrics() for end in ends if metric.buckets or not end}
    asked = {name for _, text in panels() for name in re.findall(r"\b(?:polyroute|gen_ai)_\w+(?=[{\[) ]|$)", text)}
    labels = {label for metric in telemetry.metrics() for label in metric.labels}
    assert asked - labels <= known
    assert len(asked & known) > 40


def test_compose_provisions_what_is_shipped() -> None:
    services = yaml.safe_load((DEPLOY.parent / "compose.yaml").read_text())["services"]
    for name in ("prometheus", "grafana"):
        assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+", services[name]["image"])
        for volume in services[name]["volumes"]:
            source = volume.split(":")[0]
            assert not source.startswith("./") or (DEPLOY.parent / source).is_dir()
    (provider,) = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/polyroute.yaml").read_text())["providers"]
    assert any(v.split(":")[1] == provider["options"]["path"] for v in services["grafana"]["volumes"])
