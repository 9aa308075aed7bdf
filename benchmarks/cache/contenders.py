"""Whose answers are compared: the router by tier, the floors under it, and a peer gateway; each in its own process."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from benchmarks.cache import serving as server
from benchmarks.cache.serving import Serve
from benchmarks.rig import asking, peers
from benchmarks.rig.processes import connected, free_port, started, wait
from benchmarks.rig.programs import CannotRun, Target
from benchmarks.rig.starting import of_ours
from benchmarks.rig.workload import Ask
from polyroute.v1 import admin_pb2, admin_pb2_grpc


@dataclass(frozen=True, slots=True)
class Contender:
    """One row: where its requests go, and the name of the floor that it is held against.

    `admin` is the port where it tells of its cache's hits, 0 where it has none.
    """

    name: str
    protocol: str
    target: Target
    floor: str = ""
    admin: int = 0

    def hits(self) -> int:
        """Answers that its cache has given so far, those of a look that equal calls shared included."""
        if not self.admin:
            return 0
        with grpc.insecure_channel(f"127.0.0.1:{self.admin}") as channel:
            stats = admin_pb2_grpc.AdminServiceStub(channel).GetCacheStats(admin_pb2.GetCacheStatsRequest(), timeout=60)
        return sum(model.hits + model.coalesced for model in stats.models)


def rows(name: str, ask: Ask, ports: dict[str, int], *, keys: int = 1, cached: bool = False) -> list[Contender]:
    """A row for each protocol that a server speaks."""
    return [
        Contender(
            name,
            protocol,
            Target(protocol, ports[protocol], ask, keys),
            floor=f"{protocol} echo",
            admin=ports["admin"] if cached else 0,
        )
        for protocol in ("grpc", "http")
        if protocol in ports
    ]


@contextmanager
def serving(serve: Serve) -> Iterator[dict[str, int]]:
    """The router in a process, once it is ready; its ports by name. Raises `CannotRun` where it ends instead."""
    with of_ours(server.command(serve), f"the server of {serve.cache}") as (ports, _):
        yield ports


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    """A Redis of its own; its URL. Raises `CannotRun` where there is none."""
    program = shutil.which("redis-server")
    if program is None:
        raise CannotRun("there is no redis-server")
    port = free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with started([program, *options]) as running:
        wait(lambda: connected(port), running, "redis-server")
        yield f"redis://127.0.0.1:{port}/0"


@contextmanager
def litellm(installed: Path, folder: Path, upstream: int, kind: str) -> Iterator[dict[str, int]]:
    """LiteLLM's proxy with a cache of that kind, `local` or `disk`; its ports by name."""
    place = folder / f"litellm-{kind}"
    place.mkdir()
    launch = peers.launch("litellm", peers.Place(installed, place, upstream, kind))
    with started(launch.command, launch.environ) as running:
        wait(lambda: asking.answer(launch.port, Ask(1)), running, "litellm")
        yield {"http": launch.port}
