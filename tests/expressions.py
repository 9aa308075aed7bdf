"""Every PromQL expression that is shipped: those of the dashboards' panels, and those of the rules."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

DEPLOY: Final = Path(__file__).resolve().parents[1] / "deploy"
RULE_FILES: Final = ("recording.yaml", "alerts.yaml")

_VARIABLES: Final = {"$__rate_interval": "5m", "$model": ".*", "$route": ".*"}
_COMPARISON: Final = re.compile(r"\s*(==|!=|>=|<=|>|<)\s*[\d.]+\s*$")


def panels(folder: Path = DEPLOY / "grafana" / "dashboards") -> Iterator[tuple[str, str]]:
    """Each expression of each panel, with where it stands; Grafana's variables are those of a choice of all."""
    for path in sorted(folder.glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", ()):
                yield f"{path.stem}: {panel['title']} {target['refId']}", _filled(target["expr"])


def rules(folder: Path = DEPLOY / "prometheus") -> Iterator[dict[str, Any]]:
    """The rules of both files."""
    for name in RULE_FILES:
        for group in yaml.safe_load((folder / name).read_text())["groups"]:
            yield from group["rules"]


def rule_expressions() -> Iterator[tuple[str, str]]:
    """Each rule's expression with its name; of an alert, the parts that it compares, which must be there to compare."""
    for rule in rules():
        if "record" in rule:
            yield rule["record"], rule["expr"]
        else:
            for part in rule["expr"].split(" and "):
                compared, found = _COMPARISON.subn("", part)
                assert found, f"{rule['alert']}: `{part}` compares nothing with a number"
                yield rule["alert"], compared


def _filled(expression: str) -> str:
    for name, value in _VARIABLES.items():
        expression = expression.replace(name, value)
    assert "$" not in expression, expression
    return expression
