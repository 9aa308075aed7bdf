"""Keeps one worker process: starts it, follows its load, and replaces it when it dies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

import msgspec
import structlog

from polyroute.backends.local.backoff import backoff
from polyroute.backends.local.cores import Cores
from polyroute.backends.local.messages import Eager, FromWorker, Load, LoadFailed, Progress, Ready, Report, Threads
from polyroute.backends.local.process import WorkerProcess
from polyroute.core.backend import EngineStatus, ModelState
from polyroute.core.errors import ModelFailed, ModelLoading, PolyrouteError, Unavailable, WorkerDied

_log = structlog.get_logger(__name__)

_RESTART_S: Final = (0.1, 30.0)  # first and longest wait before a dead worker is replaced; doubles between
_STEADY_S: Final = 60.0  # a worker that lived this long died of something new
_RETRY_S: Final = 2.0  # what callers are told to wait for a worker that is being replaced


class Supervisor:
    """The life of one replica's worker.

    `cores` are shared with other workers while this one computes on the CPU. `receive` gets the messages that concern
    answers; `abandon` is told when no more will come, and why. `on_restart` is called each time that a worker which
    was ready died, and `on_change` whenever `state` may be another. A load that failed is not tried again.
    """

    def __init__(
        self,
        order: Load,
        *,
        cores: Cores,
        receive: Callable[[FromWorker], None],
        abandon: Callable[[Callable[[], PolyrouteError]], None],
        on_restart: Callable[[], None],
        on_change: Callable[[], None],
    ) -> None:
        self._order = order
        self.seat = cores.seat(self._tell_threads)
        self._receive_answer = receive
        self._abandon = abandon
        self._on_restart = on_restart
        self._on_change = on_change
        self._task: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()
        self._failure = ""
        self._told = False  # whether the worker of now has said itself why it cannot load
        self._began_at = 0.0
        self._progress = ""
        self.progressed_at = 0.0  # when it last said how far it is, on the clock of `time.monotonic`
        self.worker: WorkerProcess | None = None
        self.ready: Ready | None = None
        self.engine: EngineStatus | None = None  # as the worker of now has last told
        self.ready_since = 0.0
        self.version = ""  # as of the last time that it was ready

    @property
    def state(self) -> ModelState:
        """COLD, LOADING, WARM or FAILED."""
        if self.ready is not None:
            return ModelState.WARM
        if self._failure:
            return ModelState.FAILED
        return ModelState.LOADING if self._running else ModelState.COLD

    @property
    def detail(self) -> str:
        """The state in words."""
        ready, worker = self.ready, self.worker
        if ready is not None and worker is not None:
            told = (ready.device, ready.weights, ready.path)
            return ", ".join([f"pid {worker.pid}", *filter(None, told)])
        return self._failure or (self._progress if self._running else "")

    @property
    def _running(self) -> bool:
        return self._task is not None and not self._task.done()

    def begin(self) -> None:
        """Begins to load the model, where that has not begun."""
        if self._task is None:
            self._advance("starting a worker process")
            self._task = asyncio.create_task(self._supervise(), name=f"worker of {self._order.model}")

    def require(self) -> tuple[WorkerProcess, Ready]:
        """The worker, ready; else raises `ModelLoading`, `ModelFailed` or, where nobody loads it, `Unavailable`."""
        if self.worker is not None and self.ready is not None:
            return self.worker, self.ready
        if self._failure:
            raise self._failed()
        if self._running:
            raise ModelLoading(f"`{self._order.model}` is being loaded: {self._progress}", retry_after_s=_RETRY_S)
        raise Unavailable(f"`{self._order.model}` is not loaded")

    async def settled(self) -> None:
        """Returns once the model is warm; raises `ModelFailed` when it cannot be loaded."""
        await self._settled.wait()
        if self.ready is None:
            raise self._failed() if self._failure else Unavailable(f"`{self._order.model}` was stopped meanwhile")

    async def end(self) -> None:
        """Ends the worker; returns once its memory is free."""
        if self._task is not None:
            if not self._task.cancelling():
                self._task.cancel()
            await asyncio.wait([self._task])
        self._failure = ""
        self._settled.set()

    async def _supervise(self) -> None:
        deaths = 0
        try:
            while True:
                self._began_at = time.monotonic()
                ending = await self._live()
                if self._failure:
                    return
                lived_s = time.monotonic() - self._began_at
                deaths = 1 if lived_s > _STEADY_S else deaths + 1
                wait_s = backoff(deaths, *_RESTART_S)
                self._advance(f"restarting: the worker process ended ({ending})")
                _log.error("worker.died", model=self._order.model, ending=ending, restart_in_s=wait_s)
                self._on_restart()
                await asyncio.sleep(wait_s)
        finally:
            self._settled.set()

    async def _live(self) -> str:
        """One worker from start to end; returns how it ended, with `_failure` set if that was before it was ready."""
        self.seat.claim("load")
        try:
            self.worker = worker = await WorkerProcess.spawn()
        except OSError as error:
            self._fail(f"no worker process can be started: {error}")
            return str(error)
        finally:
            if self.worker is None:
                self.seat.leave()
        self._told, ending = False, ""
        try:
            worker.send(msgspec.structs.replace(self._order, threads=self.seat.threads))
            ending = await worker.run(self._receive)
            if self.ready is None and not self._told:
                self._fail(f"its worker process ended while it loaded ({ending})")
            return ending
        finally:
            if self.ready is not None:
                self._settled.clear()
            self.worker = self.ready = self.engine = None
            self._on_change()
            self._abandon(lambda: self._died(ending or "stopped"))
            self.seat.leave()
            await worker.stop()

    def _tell_threads(self, number: int) -> None:
        if self.worker is not None:
            self.worker.send(Threads(number))

    def _receive(self, message: FromWorker) -> None:
        match message:
            case Progress():
                self._follow(message)
            case Ready():
                self.ready, self.ready_since, self.version = message, time.time(), message.version
                self._settled.set()
                self._on_change()
                self.seat.release("load")
                _log.info(
                    "model.ready",
                    model=self._order.model,
                    version=message.version,
                    device=message.device,
                    dtype=message.dtype,
                    weights=message.weights,
                    path=message.path,
                    **({"why_apart": message.why_apart} if message.why_apart else {}),
                    **({"kernels": True} if message.kernels else {}),
                    **({"why_plain": message.why_plain} if message.why_plain else {}),
                    **({"graphs": True} if message.graphs else {}),
                    **({"why_eager": message.why_eager} if message.why_eager else {}),
                    max_sequences=message.max_sequences,
                    kv_cache_tokens=message.kv_cache_tokens,
                    threads=self.seat.threads,
                    load_s=round(time.monotonic() - self._began_at, 1),
                )
            case Report():
                self.engine = message.engine
            case Eager():
                _log.warning("model.eager", model=self._order.model, why=message.why)
            case LoadFailed():
                self._told = True
                self._fail(message.message)
            case _:
                self._receive_answer(message)

    def _follow(self, progress: Progress) -> None:
        of = f" of {progress.total}" if progress.total else ""
        self._advance(f"{progress.stage} {progress.done}{of}" if progress.done else progress.stage)
        _log.info("model.progress", model=self._order.model, progress=self._progress)

    def _advance(self, progress: str) -> None:
        self._progress, self.progressed_at = progress, time.monotonic()

    def _fail(self, why: str) -> None:
        self._failure = why
        self._settled.set()
        self._on_change()

    def _died(self, ending: str) -> WorkerDied:
        return WorkerDied(f"`{self._order.model}`: its worker process ended ({ending})", retry_after_s=_RETRY_S)

    def _failed(self) -> ModelFailed:
        return ModelFailed(f"model `{self._order.model}` is not loaded: {self._failure}")
