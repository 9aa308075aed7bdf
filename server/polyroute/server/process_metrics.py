"""What the process tells of itself on `/metrics`: its version, memory, garbage collection and event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Final, NoReturn

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from polyroute.routing.metrics import Metrics
from polyroute.routing.views import ModelView

_EVERY_S: Final = 0.1


def metrics_on(registry: CollectorRegistry, owns: Callable[[ModelView], bool] = lambda model: True) -> Metrics:
    """The metrics of a server, with those of its process on the same registry.

    Of replicas it tells where the process `owns` their model.
    """
    disable_created_metrics()  # type: ignore[no-untyped-call]
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    metrics = Metrics(registry, owns=owns)
    metrics.built(version("polyroute"))
    return metrics


async def watch_loop(late: Callable[[float], None], clock: Callable[[], float] = time.perf_counter) -> NoReturn:
    """Tells ten times a second, for ever, how many seconds late the event loop was to go on."""
    while True:
        due = clock() + _EVERY_S
        await asyncio.sleep(_EVERY_S)
        late(max(0.0, clock() - due))
