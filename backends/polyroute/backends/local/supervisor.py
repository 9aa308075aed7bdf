"""Keeps one worker process: starts it, follows its load, and replaces it when it dies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
import structlog

from polyroute.backends.local.cores import Cores
from polyroute.backends.local.messages import FromWorker, Load, LoadFailed, Progress, Ready, Threads
from polyroute.backends.local.process import WorkerProcess
from polyroute.core.backend import ModelState
from polyroute.core.errors import ModelFailed, ModelLoading, PolyrouteError, Unavailable, WorkerDied

_log = structlog.get_logger(__name__)

_STARTING: Final = "starting a worker process"
_RESTART_S: Final = (0.1, 30.0)  # first and longest wait before a dead worker is replaced; doubles between
_RELOAD_S: Final = (5.0, 300.0)  # the same before a failed load is tried again
_STEADY_S: Final = 60.0  # a worker that lived this long died of something new
_RETRY_S: Final = (2.0, 10.0)  # bounds of what callers are told to wait for a load


class Supervisor:
    """The life of one model's worker.

    `cores` are shared with other workers while this one computes on the CPU. `receive` gets the messages that concern
    answers; `abandon` is told when no more will come, and why. `room` is awaited before a worker is started. With
    `persist`, a load that failed is tried again without being asked; else the next `require` after the wait does.
    """

    def __init__(
        self,
        order: Load,
        *,
        cores: Cores,
        receive: Callable[[FromWorker], None],
        abandon: Callable[[Callable[[], PolyrouteError]], None],
        room: Callable[[], Awaitable[object]],
        on_restart: Callable[[], None],
        persist: bool,
    ) -> None:
        self._order = order
        self.seat = cores.seat(self._tell_threads)
        self._receive_answer = receive
        self._abandon = abandon
        self._room = room
        self._on_restart = on_restart
        self.persist = persist
        self._task: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()
        self._failure = ""
        self._failures = 0
        self._told = False  # whether the worker of now has said itself why it cannot load
        self._retry_at = 0.0
        self._began_at = 0.0
        self._load_s = _RETRY_S[0]
        self._progress = ""
        self.worker: WorkerProcess | None = None
        self.ready: Ready | None = None
        self.ready_since = 0.0
        self.version = ""  # as of the last time that it was ready

    @property
    def state(self) -> ModelState:
        """COLD, LOADING, WARM or FAILED. A failed one stays so until it is warm, also while it is tried again."""
        if self.ready is not None:
            return ModelState.WARM
        if self._failure:
            return ModelState.FAILED
        return ModelState.LOADING if self._running else ModelState.COLD

    @property
    def detail(self) -> str:
        """The state in words."""
        if self.ready is not None and self.worker is not None:
            told = (self.ready.device, self.ready.weights, self.ready.path)
            return ", ".join([f"pid {self.worker.pid}", *filter(None, told)])
        return self._failure or (self._progress if self._running else "")

    @property
    def _running(self) -> bool:
        return self._task is not None and not self._task.done()

    def begin(self) -> None:
        """Sees to it that the model is loaded or being loaded."""
        if not self._running:
            self._settled.clear()
            self._progress = _STARTING
            self._task = asyncio.create_task(self._supervise(), name=f"worker of {self._order.model}")

    def require(self) -> tuple[WorkerProcess, Ready]:
        """The worker, ready; else raises `ModelLoading` or `ModelFailed`, and sees to it that a load goes on."""
        if self.worker is not None and self.ready is not None:
            return self.worker, self.ready
        now = time.monotonic()
        if self._failure:
            if now >= self._retry_at:
                self.begin()
            raise self._failed(retry_after_s=max(_RETRY_S[0], self._retry_at - now))
        self.begin()
        left = self._load_s - (now - self._began_at)
        raise ModelLoading(
            f"`{self._order.model}` is being loaded: {self._progress}",
            retry_after_s=min(max(left, _RETRY_S[0]), _RETRY_S[1]),
        )

    async def begin_anew(self) -> None:
        """As `begin`; where the last try failed, the next one is now."""
        if self._failure:
            await self.end()
        self.begin()

    async def settled(self) -> None:
        """Returns once the model is warm; raises `ModelFailed` when it cannot be loaded."""
        await self._settled.wait()
        if self.ready is None:
            raise self._failed() if self._failure else Unavailable(f"`{self._order.model}` was unloaded meanwhile")

    async def end(self) -> None:
        """Ends the worker; returns once its memory is free. `begin` may follow."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        self._failure, self._failures = "", 0
        self._settled.set()

    async def _supervise(self) -> None:
        deaths = 0
        try:
            self._progress = "waiting for memory that is being given back"
            await self._room()
            self._progress = _STARTING
            while True:
                self._began_at = time.monotonic()
                ending = await self._live()
                if not self._failure:
                    lived_s = time.monotonic() - self._began_at
                    deaths = 1 if lived_s > _STEADY_S else deaths + 1
                    wait_s = _backoff(_RESTART_S, deaths)
                    self._progress = f"restarting: the worker process ended ({ending})"
                    _log.error("worker.died", model=self._order.model, ending=ending, restart_in_s=wait_s)
                    self._on_restart()
                elif self.persist:
                    wait_s = max(0.0, self._retry_at - time.monotonic())
                else:
                    return
                await asyncio.sleep(wait_s)
        finally:
            self._settled.set()

    async def _live(self) -> str:
        """One worker from start to end; returns how it ended, with `_failure` set if that was before it was ready."""
        self.seat.claim("load")
        try:
            worker = await WorkerProcess.spawn()
        except OSError as error:
            self._fail(f"no worker process can be started: {error}")
            self.seat.leave()
            return str(error)
        self.worker, self._told, ending = worker, False, ""
        try:
            worker.send(msgspec.structs.replace(self._order, threads=self.seat.threads))
            ending = await worker.run(self._receive)
            if self.ready is None and not self._told:
                self._fail(f"its worker process ended while it loaded ({ending})")
            return ending
        finally:
            if self.ready is not None:
                self._settled.clear()
            self.worker = self.ready = None
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
                self._failure, self._failures = "", 0
                self._load_s = time.monotonic() - self._began_at
                self._settled.set()
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
                    max_sequences=message.max_sequences,
                    kv_cache_tokens=message.kv_cache_tokens,
                    threads=self.seat.threads,
                    load_s=round(self._load_s, 1),
                )
            case LoadFailed():
                self._told = True
                self._fail(message.message)
            case _:
                self._receive_answer(message)

    def _follow(self, progress: Progress) -> None:
        of = f" of {progress.total}" if progress.total else ""
        self._progress = f"{progress.stage} {progress.done}{of}" if progress.done else progress.stage
        _log.info("model.progress", model=self._order.model, progress=self._progress)

    def _fail(self, why: str) -> None:
        self._failures += 1
        self._retry_at = time.monotonic() + _backoff(_RELOAD_S, self._failures)
        if why != self._failure:  # said once, not at each try
            _log.error("model.failed", model=self._order.model, error=why)
        self._failure = why
        self._settled.set()

    def _died(self, ending: str) -> WorkerDied:
        return WorkerDied(f"`{self._order.model}`: its worker process ended ({ending})", retry_after_s=_RETRY_S[0])

    def _failed(self, retry_after_s: float | None = None) -> ModelFailed:
        return ModelFailed(f"model `{self._order.model}` is not loaded: {self._failure}", retry_after_s=retry_after_s)


def _backoff(bounds: tuple[float, float], times: int) -> float:
    first, longest = bounds
    return min(longest, first * 2.0 ** min(times - 1, 32))
