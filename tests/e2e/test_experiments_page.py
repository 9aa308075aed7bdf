"""What the page on experiments has readers try is run as it stands: a split with feedback, and a shadow."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.running import ROOT, Running, run, serving

PAGE = (ROOT / "docs" / "experiments.md").read_text()
TRIED = PAGE[PAGE.index("## Try it") : PAGE.index("## Who takes part")]
(FILE,) = re.findall(r"^```yaml\n(.*?)^```", TRIED, flags=re.DOTALL | re.MULTILINE)
SPLIT, SHADOW = re.findall(r"^```bash\n(.*?)^```", TRIED, flags=re.DOTALL | re.MULTILINE)


def shell(script: str, server: Running) -> str:
    """What a block of commands prints; none of them may fail."""
    environ = {"POLYROUTE_GRPC_ADDRESS": server.grpc, "POLYROUTE_ADMIN_ADDRESS": server.admin}
    done = run(["bash", "-euc", script], environ=environ)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def report(server: Running, route: str) -> dict[str, Any]:
    environ = {"POLYROUTE_ADMIN_ADDRESS": server.admin}
    found: dict[str, Any] = json.loads(
        run(["polyroute", "experiment", "report", route, "--json"], environ=environ).stdout
    )
    return found


def warm(server: Running) -> bool:
    environ = {"POLYROUTE_GRPC_ADDRESS": server.grpc}
    models = json.loads(run(["polyroute", "models", "--json"], environ=environ).stdout)
    return {model["state"] for model in models} == {"warm"}


@pytest.mark.demo
@pytest.mark.timeout(600)
def test_the_page_on_experiments_can_be_followed(tmp_path: Path, demo_cache: Path) -> None:
    (tmp_path / "models.yaml").write_text(FILE)
    environ = {"POLYROUTE_CACHE_DIR": str(demo_cache), "POLYROUTE_STATE_URL": f"sqlite:///{tmp_path / 'state.db'}"}
    with serving(tmp_path, "--config", str(tmp_path / "models.yaml"), "--no-watch", environ=environ) as server:
        server.wait_ready()
        server.wait(lambda: warm(server), "every model was warm")
        printed = shell(SPLIT, server)
        assert printed.count("recorded\n") == 12
        assert "traffic was split as configured" in printed
        assert "helpful" in printed
        found = report(server, "chat")
        helpful = {v["name"]: m for v in found["variants"] for m in v["metrics"] if m["metric"] == "helpful"}
        assert {name: metric["value"] for name, metric in helpful.items()} == {"stable": 1.0, "trial": 0.0}
        assert sum(metric["samples"] for metric in helpful.values()) == 12
        shell(SHADOW, server)
        server.wait(lambda: report(server, "mirrored")["shadows"][0]["pairs"] == 5, "every pair was compared")
        assert report(server, "mirrored")["summary"] == "5 of 5 pairs with `shade` are equal."
