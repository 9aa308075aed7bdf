"""A front as the home sees it: what it asks is answered here, for as long as it lives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, Final

from google.protobuf.message_factory import GetMessageClass
from msgspec.structs import replace

from polyroute.core.call import Call
from polyroute.core.embedder import NoEmbedding
from polyroute.core.errors import Cancelled, Unavailable
from polyroute.core.event import Finished, Started, Token
from polyroute.core.trace import Begin as BeginTrace
from polyroute.routing.gateway import Gateway
from polyroute.routing.lending import Lending
from polyroute.routing.streams import generator
from polyroute.routing.views import CacheStats
from polyroute.server.fronts.calls import call_of
from polyroute.server.fronts.failures import failed, raised
from polyroute.server.fronts.messages.asked import Failed, Withdraw
from polyroute.server.fronts.messages.exposing import CacheTold, Collect, Collected, Exposed, Family, Scrape, TellCache
from polyroute.server.fronts.messages.frames import ToFront, ToHome
from polyroute.server.fronts.messages.life import Applied, Apply, Operate, Operated
from polyroute.server.fronts.messages.models import (
    Count,
    Counted,
    Embed,
    Embedded,
    More,
    Run,
    RunFinished,
    RunStarted,
    RunToken,
)
from polyroute.server.fronts.messages.permits import Ask, Busy, GiveBack, Judged, Lent, Recall, Recalled
from polyroute.v1 import admin_pb2
from polyroute.v1.admin_pb2_grpc import AdminServiceServicer

_ADMIN: Final = admin_pb2.DESCRIPTOR.services_by_name["AdminService"]
_AHEAD: Final = 64
"""Parts of an answer that may be on their way to a front; then its sequence waits, as for any slow reader."""


@dataclass(frozen=True, slots=True)
class Rooms:
    """What the home has, and its fronts do not: models, permits, the whole of `/metrics`, the operator's calls."""

    gateway: Gateway
    lending: Lending
    begin: BeginTrace
    embed: Callable[[str, str], Awaitable[bytes]]
    expose: Callable[[str, Sequence[str]], AsyncGenerator[bytes, None]]
    operator: AdminServiceServicer


class FrontLink:
    """Answers one front, over `send`; it is a `polyroute.routing.lending.Borrower`."""

    def __init__(self, rooms: Rooms, send: Callable[[ToFront], None], drained: Callable[[], Awaitable[None]]) -> None:
        self._rooms = rooms
        self._send = send
        self._drained = drained
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._readers: dict[int, asyncio.Semaphore] = {}
        self._ids = count(1)
        self._asked: dict[int, asyncio.Future[Applied | Collected | CacheTold]] = {}
        self._gone = False
        self.here: dict[str, dict[int, int]] = {}
        """Permits that calls of the front hold, by deployment and key, as it has last told."""

    def receive(self, message: ToHome) -> bool:
        """Begins to answer what a front asks; says whether the message was such."""
        lending = self._rooms.lending
        if self._gone:
            return True
        match message:
            case Ask():
                self._begin(message.id, self._lend(message))
            case Withdraw():
                if (task := self._tasks.get(message.id)) is not None:
                    task.cancel()
            case GiveBack():
                lending.give_back(self, message.key, message.count)
            case Recalled():
                lending.recalled(self, message.key, message.count)
            case Judged():
                lending.judged(self, message.key, message.began, overloaded=message.overloaded)
            case Busy():
                self._take_busy(message)
            case Run():
                self._begin(message.id, self._run(message), message.call.request_id)
            case More():
                if (reader := self._readers.get(message.id)) is not None:
                    for _ in range(message.count):
                        reader.release()
            case Count():
                self._begin(message.id, self._count(message), message.call.request_id)
            case Embed():
                self._begin(message.id, self._embed(message))
            case Operate():
                self._begin(message.id, self._operate(message))
            case Scrape():
                self._begin(message.id, self._scrape(message))
            case Applied() | Collected() | CacheTold():
                if (asked := self._asked.pop(message.id, None)) is not None and not asked.done():
                    asked.set_result(message)
            case Failed():
                if (asked := self._asked.pop(message.id, None)) is not None and not asked.done():
                    asked.set_exception(raised(message))
            case _:
                return False
        return True

    def recall(self, key: int) -> None:
        """See `polyroute.routing.lending.Borrower`."""
        self._send(Recall(key))

    async def apply(self, content: bytes) -> str:
        """Has the front put a configuration in force; returns what is in the way, empty where nothing is."""
        answer = await self._ask(lambda id: Apply(id, content))
        return answer.trouble if isinstance(answer, Applied) else ""

    async def collect(self) -> list[Family]:
        """Everything that `/metrics` has of the front."""
        answer = await self._ask(Collect)
        return answer.families if isinstance(answer, Collected) else []

    async def cache_stats(self, model: str) -> CacheStats:
        """What the cache holds as the front sees it; raises `UnknownModel`."""
        answer = await self._ask(lambda id: TellCache(id, model))
        return answer.stats if isinstance(answer, CacheTold) else CacheStats((), ())

    async def end(self) -> None:
        """The front is gone: its calls end, and its permits are free."""
        self._gone = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for asked in self._asked.values():
            if not asked.done():
                asked.set_exception(Unavailable("the router process has ended"))
                asked.exception()  # whoever asked may have left
        self._asked.clear()
        self._rooms.lending.end(self)

    def _begin(self, id: int, work: Coroutine[Any, Any, None], request_id: str = "") -> None:
        task = self._tasks[id] = asyncio.create_task(work)
        task.add_done_callback(partial(self._over, id, request_id))

    def _over(self, id: int, request_id: str, task: asyncio.Task[None]) -> None:
        """The front must learn in any case that nothing more comes."""
        del self._tasks[id]
        if task.cancelled():
            self._send(failed(id, Cancelled("the caller left")))
        elif (error := task.exception()) is not None:
            self._send(failed(id, error, request_id))

    async def _ask(self, message: Callable[[int], ToFront]) -> Applied | Collected | CacheTold:
        if self._gone:
            raise Unavailable("the router process has ended")
        id = next(self._ids)
        self._asked[id] = asyncio.get_running_loop().create_future()
        self._send(message(id))
        return await self._asked[id]

    async def _lend(self, ask: Ask) -> None:
        terms = await self._rooms.lending.ask(self, ask.key, ask.deployment, ask.caller, ask.deadline, ahead=ask.ahead)
        self._send(Lent(ask.id, terms.spare, terms.keep, terms.learns))

    async def _run(self, run: Run) -> None:
        snapshot, call = self._rooms.gateway.snapshot, self._under_a_span(run)
        deployment = snapshot.deployment(run.model)
        same = run.fingerprint == deployment.shelf.fingerprint  # else a reload has come here, and not there yet
        reader = self._readers[run.id] = asyncio.Semaphore(_AHEAD)
        try:
            with snapshot.occupied((deployment.id,)):
                async with aclosing(generator(deployment.backend.stream(call))) as events:
                    async for event in events:
                        if isinstance(event, Started):
                            route = event.route if same else replace(event.route, version="")
                            self._send(RunStarted(run.id, route))
                        elif isinstance(event, Token):
                            await reader.acquire()
                            self._send(RunToken(run.id, event))
                        elif isinstance(event, Finished):
                            self._send(RunFinished(run.id, event))
        except Exception as error:
            if call.trace.span is not None:
                call.trace.span.failed(getattr(error, "reason", "INTERNAL"), type(error).__name__)
            raise
        finally:
            del self._readers[run.id]
            if call.trace.span is not None:
                call.trace.span.end()

    def _under_a_span(self, run: Run) -> Call:
        call = call_of(run.model, run.call)
        if not call.trace.sampled:
            return call
        return call.under(self._rooms.begin(call.trace, f"run {run.model}", dict))

    async def _count(self, count: Count) -> None:
        snapshot = self._rooms.gateway.snapshot
        deployment = snapshot.deployment(count.model)
        with snapshot.occupied((deployment.id,)):
            counted = await deployment.backend.count_tokens(call_of(count.model, count.call))
        self._send(Counted(count.id, counted.prompt_tokens, counted.context_length))

    async def _embed(self, embed: Embed) -> None:
        try:
            self._send(Embedded(embed.id, await self._rooms.embed(embed.source, embed.text)))
        except NoEmbedding as error:
            self._send(Embedded(embed.id, why_not=str(error)))

    async def _operate(self, operate: Operate) -> None:
        method = _ADMIN.methods_by_name[operate.method]
        request = GetMessageClass(method.input_type).FromString(operate.request)
        response = await getattr(self._rooms.operator, method.name)(request, None)
        self._send(Operated(operate.id, response.SerializeToString()))

    async def _scrape(self, scrape: Scrape) -> None:
        async with aclosing(self._rooms.expose(scrape.accept, scrape.names)) as parts:
            async for part in parts:
                self._send(Exposed(scrape.id, part))
                await self._drained()
        self._send(Exposed(scrape.id, b"", last=True))

    def _take_busy(self, busy: Busy) -> None:
        for key, (name, here, spare) in busy.permits.items():
            self._rooms.lending.idle(self, key, spare)
            self.here.setdefault(name, {})[key] = here
            if not here:
                del self.here[name][key]
