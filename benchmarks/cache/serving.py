"""A process that serves one contender: `python -m benchmarks.cache.serving JSON`, of `Serve`; ends with its stdin.

Prints one line of JSON once it is ready: the ports, by name.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import diskcache
import structlog

from benchmarks.cache import floors, workload
from polyroute.core.call import Call
from polyroute.routing.cache.answers import Answers
from polyroute.routing.cache.codec import StoredAnswer
from polyroute.routing.cache.disk_tier import DiskTier, _tag
from polyroute.routing.cache.frame import pack
from polyroute.routing.cache.terms import Terms
from polyroute.routing.cache.tier import Label
from polyroute.server.app import Server
from polyroute.server.settings import Flags, Settings, settings
from polyroute.server.wire.stored import AnswerCodec

_CODEC: Final = AnswerCodec()
_VERSION: Final = "1"
_AT_A_TIME: Final = 500
_USABLE_S: Final = 60.0
_SAY_EVERY: Final = 100_000


@dataclass(frozen=True, slots=True)
class Serve:
    """What to serve: the server where `cache` is given (`Config.cache`, with `entries` answers of `tokens` tokens
    filled in), else the floor named `floor`, which answers with the bytes in `answer`."""

    floor: str = ""
    answer: str = ""
    cache: dict[str, Any] | None = None
    entries: int = 0
    tokens: int = 0
    folder: str = ""
    upstream: int = 0
    redis: str = ""


async def main(serve: Serve) -> None:
    """Serves until standard input ends."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),  # standard output is for the ports
    )
    answer = Path(serve.answer).read_bytes() if serve.answer else b""  # noqa: ASYNC240 - nobody waits yet
    async with _serving(serve, answer) as ports:
        gc.freeze()  # as `polyroute serve` does
        print(json.dumps(ports), flush=True)
        await _end_of_input()


@asynccontextmanager
async def _serving(serve: Serve, answer: bytes) -> AsyncIterator[dict[str, int]]:
    if serve.cache is None:
        floor = {"grpc": floors.grpc_echo, "messages": floors.grpc_messages, "http": floors.http_echo}[serve.floor]
        async with floor(answer) as port:
            yield {"http" if serve.floor == "http" else "grpc": port}
        return
    async with Server(_settings(serve, serve.cache), environ=os.environ) as server:
        await _fill(server, serve)
        yield {name: getattr(server, f"{name}_address").port for name in ("grpc", "http", "admin")}


def _settings(serve: Serve, cache: dict[str, Any]) -> Settings:
    model = {"id": workload.MODEL, "type": "remote", "base_url": f"http://127.0.0.1:{serve.upstream}"}
    model |= {"api": "openai", "version": _VERSION, "probe_interval": "1h", "max_concurrency": 256}
    path = Path(serve.folder) / "models.yaml"
    path.write_text(json.dumps({"models": [model], "cache": cache}))  # JSON is YAML, too
    environ = {"POLYROUTE_CACHE_DIR": serve.folder, "POLYROUTE_CACHE_SIZE": "64GiB"}
    if serve.redis:
        environ["POLYROUTE_REDIS_URL"] = serve.redis
    anywhere = dict.fromkeys(("grpc_address", "http_address", "admin_address"), "127.0.0.1:0")
    return settings(Flags(config=path, watch=False, **anywhere), environ)  # type: ignore[arg-type]


async def _fill(server: Server, serve: Serve) -> None:
    """Keeps the answers as the cache itself would, and waits until they are written."""
    shelf, answers = server.gateway.snapshot.deployments[workload.MODEL].shelf, server.gateway._answers
    terms = Terms.of(workload.MODEL, shelf.config)
    disk = next((below.tier for below in answers.below if isinstance(below.tier, DiskTier)), None)
    tokens, finished = workload.answer(serve.tokens)
    batch: list[tuple[str, bytes, Label]] = []
    await _usable(answers, terms)
    for number in range(serve.entries):
        key = answers.key(workload.MODEL, shelf.key(Call(workload.request(number), "fill"), _VERSION))
        stored = StoredAnswer(key.canonical, workload.MODEL, _VERSION, tokens, finished, time.time(), 0.5)
        if disk is not None and terms.memory is None:
            label = Label(workload.MODEL, _VERSION, key.moment)
            batch.append((key.digest, pack(_CODEC.encode(stored), label), label))
        elif not answers.keep(key, stored, terms):
            raise SystemExit(f"answer {number} was not kept")
        if number % _AT_A_TIME == _AT_A_TIME - 1 or number == serve.entries - 1:
            await answers.flush()
            if disk is not None and batch:
                await disk._run(partial(_write, entries=batch))
                batch = []
        if number % _SAY_EVERY == _SAY_EVERY - 1:
            print(f"  filled {number + 1:,} of {serve.entries:,}", file=sys.stderr, flush=True)


async def _usable(answers: Answers, terms: Terms) -> None:
    """Waits until the tier finds what it is given: one that is reached over a network is not there at once."""
    key, (tokens, finished) = answers.key(workload.MODEL, b"probe"), workload.answer(1)
    async with asyncio.timeout(_USABLE_S):
        while await answers.find(key, terms) is None:
            stored = StoredAnswer(key.canonical, workload.MODEL, _VERSION, tokens, finished, time.time(), 0.5)
            answers.keep(key, stored, terms)
            await answers.flush()
            await asyncio.sleep(0.05)


def _write(cache: diskcache.Cache, *, entries: list[tuple[str, bytes, Label]]) -> None:
    """As `DiskTier.put`, but many in one transaction: a million one by one take many minutes."""
    with cache.transact():
        for digest, entry, label in entries:
            cache.set(digest, entry, tag=_tag(label))


async def _end_of_input() -> None:
    ended, loop = asyncio.Event(), asyncio.get_running_loop()

    def wait() -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=wait, daemon=True).start()
    await ended.wait()


def command(serve: Serve) -> list[str]:
    """The command that serves it."""
    return [sys.executable, "-m", "benchmarks.cache.serving", json.dumps(asdict(serve))]


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(Serve(**json.loads(sys.argv[1]))))
