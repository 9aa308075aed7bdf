"""A server in a process of its own that answers from its cache, with some or all telemetry."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Final

from polyroute.backends.echo import EchoBackend
from polyroute.core.call import Call
from polyroute.core.config import CacheConfig, Config, RemoteConfig
from polyroute.core.event import Whole
from polyroute.routing.layers.observed import Observed
from polyroute.server import logs
from polyroute.server.app import Server
from polyroute.server.settings import Address, Settings

MODES: Final = {
    "none": "none: no metrics, no line, no span",
    "off": "metrics and a log line",
    "0.01": "metrics, a log line, 1% of calls traced",
    "1": "metrics, a log line, every call traced",
}
"""What is measured; the second and later ones are as `polyroute serve` runs."""


class _Unseeing(Observed):
    """Leaves nothing of calls whose answers are at hand, as the calls of this benchmark are."""

    def took(self, call: Call, whole: Whole) -> Whole:
        return whole


_ANYWHERE: Final = Address("127.0.0.1", 0, "benchmark")


async def serve(mode: str, folder: Path, endpoint: str) -> None:
    """Serves until SIGTERM, once it has printed its gRPC address."""
    model = RemoteConfig(id="m", type="remote", base_urls=("http://127.0.0.1:9",))
    config = Config(models=(model,), default_model="m", cache=CacheConfig(mode="always"))
    environ = {}
    if mode not in ("none", "off"):
        environ = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": mode,
        }
    os.environ |= environ
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    settings = Settings(config, _ANYWHERE, _ANYWHERE, _ANYWHERE, cache_dir=folder, cache_bytes=2**26)
    async with Server(settings, environ=environ, backends={"m": EchoBackend("m")}) as server:
        if mode == "none":
            server.gateway._router._observed = _Unseeing(server.gateway._metrics)
        print(server.grpc_address, flush=True)
        await stop.wait()


def main() -> None:
    """`python -m benchmarks.telemetry.server MODE FOLDER OTLP-ENDPOINT`."""
    mode, folder, endpoint = sys.argv[1:]
    writer = logs.set_up(format="json")
    try:
        import uvloop

        uvloop.run(serve(mode, Path(folder), endpoint))
    finally:
        writer.close()


if __name__ == "__main__":
    main()
