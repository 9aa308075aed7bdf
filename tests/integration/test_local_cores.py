"""Two busy workers share the cores, as their own threads show."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import aclosing
from pathlib import Path

import pytest

from polyroute.backends.local.backend import LocalBackend
from polyroute.backends.local.cores import Cores
from polyroute.core.call import Call
from polyroute.core.config import LocalConfig
from polyroute.core.request import Request, Sampling
from tests.integration.peers import until
from tests.tiny import save

LOAD_S = 120.0
ENDLESS = Request(prompt="go on", sampling=Sampling(max_tokens=4000, temperature=1.0, seed=1))
WARM_UP = Request(prompt="go on", sampling=Sampling(max_tokens=50))

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")


def tasks(backend: LocalBackend) -> int:
    """Threads of the backend's worker process, those that are not computing included."""
    pid = backend.status().detail.split(",")[0].removeprefix("pid ")
    return len(os.listdir(f"/proc/{pid}/task"))


async def read(backend: LocalBackend, request: Request) -> None:
    async with aclosing(backend.stream(Call(request, "r"))) as events:  # type: ignore[type-var]
        async for _ in events:
            pass


async def test_a_worker_gives_up_threads_while_another_is_busy(tmp_path: Path) -> None:
    folder = save("llama", tmp_path / "model", hidden_size=512, intermediate_size=2048, max_position_embeddings=4096)
    config = LocalConfig.model_validate({"id": "m", "type": "local", "source": str(folder), "device": "cpu"})
    cores = Cores(4, settle_s=0)
    one, two = (LocalBackend(config, cache_dir=tmp_path, cores=cores) for _ in range(2))
    try:
        await asyncio.wait_for(asyncio.gather(one.load(), two.load()), LOAD_S)
        await read(one, WARM_UP)
        alone = tasks(one)
        first = asyncio.create_task(read(one, ENDLESS))
        second = asyncio.create_task(read(two, ENDLESS))
        await until(lambda: tasks(one) == alone - 2, "the first has given up two threads")
        second.cancel()
        await until(lambda: tasks(one) == alone, "the first has them back")
        first.cancel()
        await asyncio.wait([first, second])
    finally:
        await one.stop()
        await two.stop()
