"""A process that serves from a cache: `python -m benchmarks.cache.serving JSON`, of `Serve`; ends with its stdin.

Prints one line of JSON once it is ready: the ports, by name.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import diskcache
import structlog

from benchmarks.cache import workload
from benchmarks.rig.stdin import end_of_input
from benchmarks.rig.workload import MODEL, Ask
from polyroute.core.call import Call
from polyroute.routing.cache.answers import Answers
from polyroute.routing.cache.codec import StoredAnswer
from polyroute.routing.cache.disk_labels import tag_of
from polyroute.routing.cache.disk_tier import DiskTier
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
    """What to serve: the router over the peer at port `upstream`, with `cache` (of `Config.cache`), into which
    `entries` answers of `tokens` tokens are filled. Its files are in `folder`."""

    cache: dict[str, Any]
    folder: str
    upstream: int
    entries: int = 0
    tokens: int = 0
    redis: str = ""


async def main(serve: Serve) -> None:
    """Serves until standard input ends."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),  # standard output is for the ports
    )
    async with Server(_settings(serve), environ=os.environ) as server:
        await _fill(server, serve)
        gc.freeze()  # as `polyroute serve` does
        ports = {name: getattr(server, f"{name}_address").port for name in ("grpc", "http", "admin")}
        print(json.dumps(ports), flush=True)
        await end_of_input()


def _settings(serve: Serve) -> Settings:
    model = {"id": MODEL, "type": "remote", "base_url": f"http://127.0.0.1:{serve.upstream}"}
    model |= {"api": "openai", "version": _VERSION, "probe_interval": "1h", "max_concurrency": 256}
    path = Path(serve.folder) / "models.yaml"
    path.write_text(json.dumps({"models": [model], "cache": serve.cache}))  # JSON is YAML, too
    environ = {"POLYROUTE_CACHE_DIR": serve.folder, "POLYROUTE_CACHE_SIZE": "64GiB"}
    if serve.redis:
        environ["POLYROUTE_REDIS_URL"] = serve.redis
    anywhere = dict.fromkeys(("grpc_address", "http_address", "admin_address"), "127.0.0.1:0")
    return settings(Flags(config=path, watch=False, **anywhere), environ)  # type: ignore[arg-type]


async def _fill(server: Server, serve: Serve) -> None:
    """Keeps the answers as the cache itself would, and waits until they are written."""
    shelf, answers = server.gateway.snapshot.deployments[MODEL].shelf, server.gateway._answers
    terms = Terms.of(MODEL, shelf.config)
    used = {stay.tier for stay in terms.below}  # there is a disk tier where the model uses none, too
    disk = next((t.tier for t in answers.below if isinstance(t.tier, DiskTier) and t.name in used), None)
    ask, (tokens, finished) = Ask(serve.tokens), workload.answer(serve.tokens)
    batch: list[tuple[str, bytes, Label]] = []
    await _usable(answers, terms)
    for number in range(serve.entries):
        key = answers.key(MODEL, shelf.key(Call(workload.request(ask, number), "fill"), _VERSION))
        stored = StoredAnswer(key.canonical, MODEL, _VERSION, tokens, finished, time.time(), 0.5)
        if disk is not None and terms.memory is None:
            label = Label(MODEL, _VERSION, key.moment)
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
    tokens, finished = workload.answer(1)
    async with asyncio.timeout(_USABLE_S):
        while await answers.find(key := answers.key(MODEL, b"probe"), terms) is None:
            stored = StoredAnswer(key.canonical, MODEL, _VERSION, tokens, finished, time.time(), 0.5)
            answers.keep(key, stored, terms)
            await answers.flush()
            await asyncio.sleep(0.05)


def _write(cache: diskcache.Cache, *, entries: list[tuple[str, bytes, Label]]) -> None:
    """As `DiskTier.put`, but many in one transaction: a million one by one take many minutes."""
    with cache.transact():
        for digest, entry, label in entries:
            cache.set(digest, entry, tag=tag_of(label))


def command(serve: Serve) -> list[str]:
    """The module that serves it, and its argument."""
    return ["benchmarks.cache.serving", json.dumps(asdict(serve))]


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(Serve(**json.loads(sys.argv[1]))))
