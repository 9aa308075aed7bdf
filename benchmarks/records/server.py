"""A server in a process of its own, with a plain route and one beside each kind of troubled shadow."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import uvloop

from polyroute.backends.echo import EchoBackend, Script
from polyroute.core.config import Config
from polyroute.core.errors import PeerFailed
from polyroute.routing.experiments.database import default_url
from polyroute.server import logs
from polyroute.server.app import Server
from polyroute.server.settings import Address, Settings


async def _slowly(_place: int) -> None:
    await asyncio.sleep(0.02)


SHADOWS: Final[Mapping[str, Callable[[], Script]]] = {
    "fast": Script,
    "failing": lambda: Script(error=PeerFailed("`failing`: broken")),
    "slow": lambda: Script(pause=_slowly),
    "hung": lambda: Script(gate=asyncio.Event()),
}
"""How each shadow answers; it gets a copy of every call. That of `hung` soon has a full queue, `failing` rests."""

NONE: Final = "none"
"""In place of a shadow: the same route once more, for what such a measurement makes of no difference at all."""

_ANYWHERE: Final = Address("127.0.0.1", 0, "benchmark")


def _config() -> Config:
    models = [{"id": m, "type": "remote", "base_url": "http://none:1"} for m in ("one", *SHADOWS)]
    routes: list[dict[str, Any]] = [
        {"id": f"with-{kind}", "model": "one", "shadow": [{"model": kind}]} for kind in SHADOWS
    ]
    routes += [{"id": "plain", "model": "one"}, {"id": f"with-{NONE}", "model": "one"}]
    return Config.model_validate({"models": models, "routes": routes, "default_model": "one", "cache": {"mode": "off"}})


async def serve(folder: Path) -> None:
    """Serves until SIGTERM, once it has printed its gRPC and HTTP addresses."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    settings = Settings(
        _config(),
        *(_ANYWHERE, _ANYWHERE, _ANYWHERE),
        cache_dir=folder,
        cache_bytes=2**24,
        state_url=default_url(folder),
    )
    backends = {"one": EchoBackend("one")} | {m: EchoBackend(m, script=script()) for m, script in SHADOWS.items()}
    async with Server(settings, environ={}, backends=backends) as server:
        print(server.grpc_address, server.http_address, flush=True)
        await stop.wait()


def main() -> None:
    """`python -m benchmarks.records.server FOLDER`."""
    writer = logs.set_up(format="json")
    try:
        uvloop.run(serve(Path(sys.argv[1])))
    finally:
        writer.close()


if __name__ == "__main__":
    main()
