"""Who is measured: the floors, the upstream itself, the router as an operator would run it, and its peers."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from benchmarks.rig import asking, peers
from benchmarks.rig.floors import FLOORS
from benchmarks.rig.processes import SERVER_CORES, Running, free_port, started, wait
from benchmarks.rig.programs import CannotRun, Target, Upstream
from benchmarks.rig.starting import floor
from benchmarks.rig.workload import CHAT, DRAWN, MODEL, Ask
from benchmarks.router.cases import DIRECT, LITELLM, LITELLM_DISK, OURS, OURS_DISK, PEERS

_MOST_AT_ONCE: Final = 8192
"""Calls that the router lets through at once, so that thousands of callers are measured and none is refused."""
_PROBE: Final = Ask(1)


@dataclass(frozen=True, slots=True)
class Contender:
    """A server that runs: its ports by protocol, and its process, None of the upstream itself.

    `path` and `model` are what its requests over HTTP say.
    """

    name: str
    ports: dict[str, int]
    running: Running | None = None
    path: str = CHAT
    model: str = MODEL

    @property
    def process(self) -> Running:
        """Its process; the upstream itself has none here."""
        if self.running is None:
            raise CannotRun(f"{self.name} has no process that can be looked at")
        return self.running

    def target(self, protocol: str, ask: Ask, keys: int) -> Target:
        """Where such requests go; what speaks no gRPC is asked over HTTP."""
        spoken = protocol if protocol in self.ports else "http"
        model = ask.model if self.model == MODEL else self.model
        return Target(
            spoken, self.ports[spoken], replace(ask, model=model), keys, self.path if spoken == "http" else ""
        )


@dataclass(frozen=True, slots=True)
class Place:
    """What contenders are started with: a folder of this run, the upstream, where spans go, and the installed peers.

    `seeds` gives each load one that no other has, so that a question that should be new is.
    """

    folder: Path
    upstream: Upstream
    spans: str
    peers: Path
    seeds: Iterator[int] = field(default_factory=lambda: itertools.count(1))


@dataclass(frozen=True, slots=True)
class Ours:
    """How the router is run: over so many models, with these tiers of the cache (none: the usual), on these cores."""

    models: int = 1
    tiers: tuple[str, ...] = ()
    cores: str = SERVER_CORES
    flags: tuple[str, ...] = field(default=())


def everyone() -> list[str]:
    """Names of all contenders."""
    return [*FLOORS, DIRECT, OURS, OURS_DISK, *PEERS]


def model_name(number: int | None, models: int) -> str:
    """The name of one of so many models; None leaves its number to the load generator, which draws one."""
    if models == 1:
        return MODEL
    return f"{MODEL}-{DRAWN if number is None else f'{number:0{len(DRAWN)}}'}"


@contextmanager
def running(name: str, place: Place) -> Iterator[Contender]:
    """The contender of that name, once it answers; raises `CannotRun`."""
    if name == DIRECT:
        yield Contender(name, {"http": place.upstream.port})
    elif name in FLOORS:
        with floor(name, place.upstream.port) as (ports, process):
            yield Contender(name, ports, process)
    elif name in (OURS, OURS_DISK):
        with ours(Ours(tiers=("disk",) if name == OURS_DISK else ()), place, name) as contender:
            yield contender
    else:
        with _peer(name, place) as contender:
            yield contender


@contextmanager
def ours(how: Ours, place: Place, name: str = OURS) -> Iterator[Contender]:
    """`polyroute serve` with cache and metrics on, 1% of calls traced, and its log in a file."""
    folder = _folder(name, place)
    config = folder / "models.yaml"
    config.write_text(json.dumps(_config(how, place)))  # JSON is YAML, too
    ports = {protocol: free_port() for protocol in ("grpc", "http", "admin")}
    command = [
        str(Path(sys.executable).parent / "polyroute"),
        "serve",
        "--config",
        str(config),
        "--drain-timeout",
        "1",
        *how.flags,
    ]
    for protocol, port in ports.items():
        command += [f"--{protocol}-address", f"127.0.0.1:{port}"]
    probe = replace(_PROBE, model=model_name(0, how.models))
    with started(command, _environ(folder, place), cores=how.cores, log=folder / "log") as process:
        wait(lambda: asking.answer(ports["http"], probe), process, name)
        yield Contender(name, ports, process)


@contextmanager
def _peer(name: str, place: Place) -> Iterator[Contender]:
    folder = _folder(name, place)
    kind = {LITELLM: "local", LITELLM_DISK: "disk"}.get(name, "")
    launch = peers.launch("litellm" if kind else name, peers.Place(place.peers, folder, place.upstream.port, kind))
    probe = replace(_PROBE, model=launch.model)
    with started(launch.command, launch.environ, log=folder / "log") as process:
        wait(lambda: asking.answer(launch.port, probe, path=launch.path), process, name)
        yield Contender(name, {"http": launch.port}, process, launch.path, launch.model)


def _config(how: Ours, place: Place) -> dict[str, Any]:
    peer = {"type": "remote", "base_url": f"http://127.0.0.1:{place.upstream.port}", "api": "openai", "version": "1"}
    limits = {"max_concurrency": _MOST_AT_ONCE, "max_queue": _MOST_AT_ONCE, "peer_model": MODEL}
    models = [{"id": model_name(number, how.models), **peer, **limits} for number in range(how.models)]
    cache: dict[str, Any] = {"tiers": list(how.tiers)} if how.tiers else {}
    return {"default_model": models[0]["id"], "models": models, "cache": cache}


def _environ(folder: Path, place: Place) -> dict[str, str]:
    return {
        "POLYROUTE_CACHE_DIR": str(folder / "cache"),
        "POLYROUTE_STATE_URL": f"sqlite:///{folder / 'state.db'}",
        "OTEL_EXPORTER_OTLP_ENDPOINT": place.spans,
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "0.01",
    }


def _folder(name: str, place: Place) -> Path:
    folder = place.folder / "-".join(name.replace(",", "").split())
    folder.mkdir(exist_ok=True)
    return folder
