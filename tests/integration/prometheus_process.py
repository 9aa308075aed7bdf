"""A real Prometheus, started by a test, that scrapes one server every second and evaluates the shipped rules."""

from __future__ import annotations

import asyncio
import math
import os
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
import yaml

RULES: Final = Path(__file__).resolve().parents[2] / "deploy" / "prometheus"
WAIT_S: Final = 60.0


def needs(program: str) -> pytest.MarkDecorator:
    """Skips where Debian's package with that program is not installed, except in CI, where it must be."""
    missing = shutil.which(program) is None and os.environ.get("CI") != "true"
    return pytest.mark.skipif(missing, reason=f"{program} is not installed: apt-get install prometheus")


@dataclass(frozen=True, slots=True)
class Prometheus:
    """Its HTTP interface."""

    url: str
    client: aiohttp.ClientSession

    async def query(self, expression: str) -> list[float]:
        """The values of an instant query, those that are no numbers (0 / 0) left out; raises on one it refuses."""
        found = await self.get("query", query=expression)
        if found["resultType"] == "scalar":
            return [float(found["result"][1])]
        values = [float(series["value"][1]) for series in found["result"]]
        return [value for value in values if not math.isnan(value)]

    async def get(self, what: str, **parameters: str) -> Any:
        """The data of an answer of `/api/v1/WHAT`."""
        async with self.client.get(f"{self.url}/api/v1/{what}", params=parameters) as answer:
            told = await answer.json()
        if told["status"] != "success":
            raise ValueError(f"{told['error']}: {parameters}")
        return told["data"]

    async def exemplars(self, expression: str) -> set[str]:
        """The trace IDs of the exemplars behind an expression, as Grafana asks for those of a panel's."""
        found = await self.get("query_exemplars", query=expression, start="0", end="9999999999")
        return {exemplar["labels"]["trace_id"] for series in found for exemplar in series["exemplars"]}

    async def until(self, expression: str, least: float) -> None:
        """Waits until the sum of an expression's values is that high."""
        async with asyncio.timeout(WAIT_S):
            while sum(await self.query(expression)) < least:  # noqa: ASYNC110 - another process has no event to give
                await asyncio.sleep(0.1)


@asynccontextmanager
async def scraping(target: str, folder: Path) -> AsyncIterator[Prometheus]:
    """Prometheus over `target`, an address, with its data in `folder`; ready, with one scrape at least."""
    config = folder / "prometheus.yaml"
    config.write_text(yaml.safe_dump(_configuration(target)))
    address = f"127.0.0.1:{_free_port()}"
    process = await asyncio.create_subprocess_exec(
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
        "--enable-feature=exemplar-storage",
        "--log.level=error",
    )
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=WAIT_S)) as client:
            prometheus = Prometheus(f"http://{address}", client)
            await _ready(prometheus, process)
            await prometheus.until('up{job="polyroute"}', 1)
            yield prometheus
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def _configuration(target: str) -> dict[str, Any]:
    """The shipped one, but for the address and a scrape every second."""
    shipped: dict[str, Any] = yaml.safe_load((RULES / "prometheus.yaml").read_text())
    shipped["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    shipped["rule_files"] = [str(RULES / name) for name in shipped["rule_files"]]
    for job in shipped["scrape_configs"]:
        job["static_configs"] = [{"targets": [target]}]
    return shipped


async def _ready(prometheus: Prometheus, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(WAIT_S):
        while process.returncode is None:
            try:
                async with prometheus.client.get(f"{prometheus.url}/-/ready") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientConnectionError:
                pass
            await asyncio.sleep(0.1)
    raise AssertionError(f"prometheus ended with {process.returncode}")


def _free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])
