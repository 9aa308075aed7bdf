"""Rules and alerts do what their own tests say, and each alert tells people what to do."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import yaml
from deploy.faults import faults

from tests.expressions import DEPLOY, rules
from tests.integration.prometheus_process import needs

ROOT = DEPLOY.parent
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()
ALERTS = [rule["alert"] for rule in rules() if "alert" in rule]
TESTED = yaml.safe_load((DEPLOY / "prometheus" / "tests.yaml").read_text())["tests"]


def promtool(*arguments: str, folder: Path = DEPLOY / "prometheus") -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *arguments], cwd=folder, capture_output=True, text=True, check=False)


@needs("promtool")
def test_the_rules_pass_their_own_tests() -> None:
    checked = promtool("check", "config", "prometheus.yaml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    tested = promtool("test", "rules", "tests.yaml")
    assert tested.returncode == 0, tested.stdout + tested.stderr


@needs("promtool")
@pytest.mark.parametrize("alert", ALERTS)
def test_a_rule_that_is_changed_fails_them(alert: str, tmp_path: Path) -> None:
    """Whatever its threshold: the tests see an alert that never fires."""
    folder = copytree(DEPLOY / "prometheus", tmp_path / "prometheus")
    changed = yaml.safe_load((folder / "alerts.yaml").read_text())
    (rule,) = [rule for group in changed["groups"] for rule in group["rules"] if rule.get("alert") == alert]
    rule["expr"] = f"({rule['expr']}) > 1e9"
    (folder / "alerts.yaml").write_text(yaml.safe_dump(changed))
    assert promtool("test", "rules", "tests.yaml", folder=folder).returncode != 0


def test_every_rule_is_tested() -> None:
    fired: dict[str, list[Any]] = {}
    for case in (case for test in TESTED for case in test["alert_rule_test"]):
        fired.setdefault(case["alertname"], []).append(case["exp_alerts"])
    assert set(fired) == set(ALERTS)
    assert all(any(expected) and not all(expected) for expected in fired.values())  # firing and silent
    queried = " ".join(case["expr"] for test in TESTED for case in test.get("promql_expr_test", ()))
    for rule in rules():
        assert "alert" in rule or rule["record"] in queried, rule["record"]


def test_every_alert_has_its_paragraph_and_no_other_is_there() -> None:
    sections = re.findall(r"^## (\w+)\n(\S.*)", RUNBOOK, flags=re.MULTILINE)
    assert sorted(name for name, _ in sections) == sorted(ALERTS)
    assert all(len(first) > 60 for _, first in sections)


def test_every_alert_is_graded_and_says_what_is_wrong() -> None:
    for rule in rules():
        if "alert" in rule:
            assert rule["labels"]["severity"] in ("critical", "warning")
            assert rule["annotations"]["summary"].endswith(".")


def test_faults_are_the_outcomes_that_are_our_own() -> None:
    (rule,) = [rule for rule in rules() if rule.get("record") == "model:polyroute_faults:rate5m"]
    assert f'outcome=~"{faults()}"' in rule["expr"]
    assert {"INTERNAL", "PEER_FAILED", "WORKER_DIED"} <= set(faults().split("|"))
    assert not {"CANCELLED", "UNKNOWN_MODEL", "OVERLOADED", "UNIMPLEMENTED"} & set(faults().split("|"))
