"""Writes every dashboard into a folder, as Grafana's provisioning reads it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.dashboards.cache import CACHE
from deploy.dashboards.engines import ENGINES
from deploy.dashboards.model import MODEL
from deploy.dashboards.overview import OVERVIEW
from deploy.dashboards.process import PROCESS
from deploy.dashboards.routes import ROUTES

DASHBOARDS: Final = {
    "overview": OVERVIEW,
    "model": MODEL,
    "routes": ROUTES,
    "cache": CACHE,
    "engines": ENGINES,
    "process": PROCESS,
}


def write(folder: Path) -> None:
    """Writes `NAME.json` for each of them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, dashboard in DASHBOARDS.items():
        text = JSONEncoder(sort_keys=True, indent=2).encode(dashboard.build())
        (folder / f"{name}.json").write_text(text + "\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
