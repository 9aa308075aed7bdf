"""An embedding model in a worker process of its own, started with the first text and replaced when it dies."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from polyroute.backends.local.backoff import backoff
from polyroute.backends.local.messages import Embed, Embedded, EmbedderReady, FromWorker, LoadEmbedder, LoadFailed
from polyroute.backends.local.process import WorkerProcess
from polyroute.core.embedder import NoEmbedding

MOST_WAITING: Final = 32
"""Texts that may wait for their vectors; more are refused at once."""

_RESTART_S: Final = (1.0, 300.0)  # first and longest wait before a worker is replaced; doubles between

log = structlog.get_logger(__name__)


class LocalEmbedder:
    """Implements `polyroute.core.embedder.Embedder` over one worker process, which computes on one thread.

    `source` is a folder, a hub ID, or `minilm` for the packaged all-MiniLM-L6-v2. A load that fails is tried again, as
    seldom as a worker that dies.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self._task: asyncio.Task[None] | None = None
        self._worker: WorkerProcess | None = None
        self._ready = False
        self._trouble = "is being loaded"  # in words, while it is not ready
        self._refused = ""  # why the worker of now could not load the model
        self._deaths = 0
        self._stopped = False
        self._last = 0
        self._waiting: dict[int, asyncio.Future[bytes]] = {}

    def __repr__(self) -> str:
        return f"<LocalEmbedder {self.source} {'ready' if self._ready else self._trouble} waiting={len(self._waiting)}>"

    @property
    def pid(self) -> int | None:
        """Its worker's process ID, while there is one."""
        return None if self._worker is None else self._worker.pid

    async def embed(self, text: str) -> bytes:
        """See `Embedder.embed`; raises `NoEmbedding` also for a text that is longer than the model reads."""
        if self._stopped:
            raise NoEmbedding(f"`{self.source}` is stopped")
        if self._task is None:
            self._task = asyncio.create_task(self._supervise(), name=f"embedder {self.source}")
        if not self._ready or self._worker is None:
            raise NoEmbedding(f"`{self.source}` {self._trouble}")
        if len(self._waiting) >= MOST_WAITING:
            raise NoEmbedding(f"`{self.source}`: {len(self._waiting)} texts waiting, limit {MOST_WAITING}")
        self._last += 1
        id = self._last
        vector: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[id] = vector
        try:
            self._worker.send(Embed(id, text))
            return await vector
        finally:
            # Whoever gave up still has a text there that the worker will read: it counts until that is done.
            if vector.done() and not vector.cancelled():
                self._waiting.pop(id, None)

    async def stop(self) -> None:
        """Ends the worker; who waits for a vector gets `NoEmbedding`."""
        self._stopped = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _supervise(self) -> None:
        while True:
            ending = await self._live()
            self._deaths += 1
            wait_s = backoff(self._deaths, *_RESTART_S)
            log.warning("embedder.ended", source=self.source, ending=ending, restart_in_s=wait_s, effect="skipped")
            await asyncio.sleep(wait_s)

    async def _live(self) -> str:
        """One worker from start to end; returns how it ended."""
        try:
            self._worker = worker = await WorkerProcess.spawn()
        except OSError as error:
            self._trouble = f"cannot be started: {error}"
            return str(error)
        self._trouble, self._refused, ending = "is being loaded", "", "stopped"
        try:
            worker.send(LoadEmbedder(self.source))
            ending = await worker.run(self._receive)
            return self._refused or ending
        finally:
            self._trouble = self._refused or f"has ended ({ending})"
            self._worker, self._ready = None, False
            self._abandon(NoEmbedding(f"`{self.source}` {self._trouble}"))
            await worker.stop()

    def _receive(self, message: FromWorker) -> None:
        match message:
            case EmbedderReady():
                self._ready, self._deaths = True, 0
                log.info("embedder.ready", source=self.source, dimensions=message.dimensions)
            case LoadFailed():
                self._refused = f"cannot be loaded: {message.message}"
            case Embedded():
                vector = self._waiting.pop(message.id, None)
                if vector is None or vector.done():
                    return
                if message.why_not:
                    vector.set_exception(NoEmbedding(f"`{self.source}`: {message.why_not}"))
                else:
                    vector.set_result(message.vector)
            case _:
                pass

    def _abandon(self, why: NoEmbedding) -> None:
        for vector in self._waiting.values():
            if not vector.done():
                vector.set_exception(why)
        self._waiting.clear()
