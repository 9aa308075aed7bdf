"""How late the router's event loop runs beside a busy engine: `python -m benchmarks.engine.looplag --help`.

The worker process has all cores but one; this process reads all streams and ticks every 5 ms. The lag of a tick is how
much later than asked it came.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TypeVar

import uvloop

from benchmarks.engine import models
from benchmarks.engine.figures import quantile
from benchmarks.engine.served import answer, backend, texts
from benchmarks.engine.workload import Words
from polyroute.backends.local.backend import LocalBackend
from polyroute.core.event import Usage

_TICK_S = 0.005
_PROMPT_TOKENS = 64
_T = TypeVar("_T")


async def ticks(lags: list[float]) -> None:
    """Ticks until it is cancelled; adds the lag of each tick, in seconds."""
    while True:
        due = time.perf_counter() + _TICK_S  # the loop's own clock counts whole milliseconds
        await asyncio.sleep(_TICK_S)
        lags.append(time.perf_counter() - due)


async def measure(folder: Path, precision: str, streams: int, tokens: int, idle_s: float) -> str:
    """Ticks for `idle_s` seconds beside an idle worker, then while `streams` answers of `tokens` tokens are made."""
    threads = max(1, (os.cpu_count() or 1) - 1)
    words = Words(folder, seed="looplag")
    prompts = texts(folder, [words.prompt(_PROMPT_TOKENS) for _ in range(streams)])
    async with backend(folder, precision, threads, streams) as served:
        idle: list[float] = []
        await _beside(idle, asyncio.sleep(idle_s))
        busy: list[float] = []
        began = time.perf_counter()
        made = sum(await _beside(busy, asyncio.gather(*(_read(served, prompt, tokens) for prompt in prompts))))
        rate = made / (time.perf_counter() - began)
    return (
        f"{streams} streams of {tokens} tokens, worker with {threads} threads: {rate:.1f} tokens/s\n"
        f"idle: {_told(idle)}\nbusy: {_told(busy)}"
    )


async def _beside(lags: list[float], work: Awaitable[_T]) -> _T:
    ticking = asyncio.create_task(ticks(lags))
    try:
        return await work
    finally:
        ticking.cancel()


async def _read(served: LocalBackend, prompt: str, tokens: int) -> int:
    used = 0
    async with aclosing(answer(served, prompt, tokens)) as pieces:
        async for piece in pieces:
            if isinstance(piece, Usage):
                used = piece.completion_tokens
    return used


def _told(lags: Sequence[float]) -> str:
    p50, p99 = (quantile(lags, share) * 1e3 for share in (0.5, 0.99))
    return f"lag p50 {p50:.2f} ms, p99 {p99:.2f} ms, worst {max(lags) * 1e3:.2f} ms over {len(lags)} ticks"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine.looplag", description=__doc__)
    parser.add_argument("folder", help=f"a model folder, or one of {', '.join(models.NAMES)} that is made already")
    parser.add_argument("--models", type=Path, default=models.CACHE, metavar="DIR", help="where models are kept")
    parser.add_argument("--precision", default="bfloat16", help="bfloat16, float32, int8 or int4")
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--idle", type=float, default=5.0, metavar="SECONDS")
    options = parser.parse_args(arguments)
    folder = models.find(options.folder, options.models)
    if folder is None:
        print(f"{options.folder} is not made yet: run python -m benchmarks.engine first", file=sys.stderr)
        return 2
    print(uvloop.run(measure(folder, options.precision, options.streams, options.tokens, options.idle)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
