"""Looks now and then whether the configuration's file has changed, and has it read again if so."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from polyroute.core.errors import PolyrouteError
from polyroute.server.config_source import ConfigSource

INTERVAL_S: Final = 0.5

log = structlog.get_logger(__name__)


class ConfigWatch:
    """Watches one file by its content, looked at twice a second; see `look`.

    Content is what counts, so it does not matter how it comes there: written in place, renamed into place as editors
    do, or by a link that is turned to another folder, as Kubernetes does with a ConfigMap. (inotify follows a file and
    not its name, tells of writes that are not finished, and is silent on network file systems.)
    """

    def __init__(self, source: ConfigSource, reload: Callable[[], Awaitable[object]]) -> None:
        self._source = source
        self._reload = reload
        self._seen = source.last_read

    async def run(self, interval_s: float = INTERVAL_S) -> None:
        """Looks until it is cancelled."""
        while True:
            await asyncio.sleep(interval_s)
            try:
                await self.look()
            except PolyrouteError:
                return  # the server is leaving
            except Exception:  # our bug, which `reload` has logged; the next change is another chance
                log.debug("config.watch_failed", exc_info=True)

    async def look(self) -> None:
        """Looks once. Content is read again when two looks have found the same and nobody has read it yet.

        So a file that is being written is left alone until it is whole, and a broken one is told of once. A file that
        is not there is waited for.
        """
        before = self._seen
        self._seen = await asyncio.to_thread(self._source.look)
        if not self._seen:
            if before:
                log.warning("config.missing", file=str(self._source.path), effect="the configuration in force stays")
        elif self._seen == before and self._seen != self._source.last_read:
            await self._reload()
