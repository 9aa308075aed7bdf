"""What the backend decides before any worker is asked."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from polyroute.backends.local.backend import LocalBackend
from polyroute.backends.local.cores import Cores
from polyroute.core.backend import ModelState
from polyroute.core.call import Call
from polyroute.core.config import LocalConfig
from polyroute.core.errors import Draining, Unavailable, Unsupported
from polyroute.core.request import Message, Request, Tool

TOOLS = (Tool("f"),)
TALK = (Message("user", "hi"),)


def backend(tmp_path: Path, cores: Cores | None = None) -> LocalBackend:
    config = LocalConfig(id="m", type="local", source=str(tmp_path), version="v1")
    return LocalBackend(config, cache_dir=tmp_path, cores=cores)


def test_the_router_never_imports_torch() -> None:
    program = (
        "import sys, polyroute.backends.local.backend\n"
        "sys.exit(', '.join({'torch', 'transformers', 'tokenizers'} & set(sys.modules)) or None)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (Request(prompt="a", extra={"x": 1}), "extra.x"),
        (Request(messages=TALK, tools=TOOLS, tool_choice="required"), "tool_choice"),
        (Request(messages=TALK, tools=TOOLS, tool_choice="f"), "tool_choice"),
        (Request(prompt="a", tools=TOOLS), "tools"),
    ],
)
async def test_what_no_local_model_can_do_is_refused_by_name(tmp_path: Path, request_: Request, field: str) -> None:
    with pytest.raises(Unsupported) as caught:
        await anext(backend(tmp_path).stream(Call(request_, "r")))
    assert caught.value.field == field


async def test_a_cold_backend_says_so_and_knows_its_configured_version(tmp_path: Path) -> None:
    status = backend(tmp_path).status()
    assert (status.state, status.version, status.replicas[0].name) == (ModelState.COLD, "v1", "m#0")


async def test_a_stopped_backend_takes_no_calls(tmp_path: Path) -> None:
    cold = backend(tmp_path)
    await cold.stop()
    with pytest.raises(Draining):
        await anext(cold.stream(Call(Request(prompt="a"), "r")))
    with pytest.raises(Draining):
        await cold.load()


async def test_a_reload_gives_it_another_version(tmp_path: Path) -> None:
    cold = backend(tmp_path)
    cold.adopt(LocalConfig(id="m", type="local", source=str(tmp_path), version="v2"))
    assert (cold.status().state, cold.status().version) == (ModelState.COLD, "v2")


@pytest.mark.parametrize("turns", range(2, 8))
async def test_a_load_that_is_stopped_while_its_process_is_spawned_leaves_nothing(tmp_path: Path, turns: int) -> None:
    """Neither a seat nor, as asyncio would warn, a process."""
    cores = Cores(4)
    spawning = backend(tmp_path, cores)
    loading = asyncio.create_task(spawning.load())
    for _ in range(turns):
        await asyncio.sleep(0)
    assert cores._busy
    await spawning.stop()
    assert not cores._busy
    with pytest.raises(Unavailable, match="was stopped meanwhile"):
        await loading
