"""The home as a front sees it: who lends permits, runs local models, and knows how all processes stand together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from itertools import count
from typing import Final, TypeAlias
from weakref import WeakValueDictionary

from polyroute.core.backend import BackendStatus, Facts, ModelState, TokenCount
from polyroute.core.call import Call
from polyroute.core.config import ModelConfig
from polyroute.core.embedder import NoEmbedding
from polyroute.core.errors import PolyrouteError, Unavailable
from polyroute.core.event import Event, Started
from polyroute.routing.lent_permits import LentPermits, Terms
from polyroute.server.fronts.calls import told
from polyroute.server.fronts.failures import raised
from polyroute.server.fronts.messages.asked import Failed, Withdraw
from polyroute.server.fronts.messages.exposing import Exposed, Scrape
from polyroute.server.fronts.messages.frames import ToFront, ToHome
from polyroute.server.fronts.messages.life import Operate, Operated, Stand
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

_TAKEN: Final = 16
"""Parts of an answer that are taken before the home is told."""
_UNTOLD: Final = -1

_Answer: TypeAlias = RunStarted | RunToken | RunFinished | Counted | Embedded | Operated | Exposed | Failed


class HomeLink:
    """Asks the home by `send`, and is given its answers by `receive`. It is the `Lender` of every deployment here."""

    def __init__(self, send: Callable[[ToHome], None]) -> None:
        self._send = send
        self._ids = count(1)
        self._asks: dict[int, tuple[LentPermits, asyncio.Future[None]]] = {}
        self._answers: dict[int, asyncio.Queue[_Answer]] = {}
        self._permits: WeakValueDictionary[int, LentPermits] = WeakValueDictionary()
        self._named: WeakValueDictionary[str, LentPermits] = WeakValueDictionary()
        self._busy: dict[int, tuple[str, int, int]] = {}
        self._stood: dict[str, tuple[int, int, int]] = {}
        self._local: dict[str, BackendStatus] = {}
        self._gone: Unavailable | None = None

    def receive(self, message: ToFront) -> bool:
        """Takes an answer of the home's, or its news; says whether the message was one."""
        match message:
            case Lent():
                permits, given = self._asks.pop(message.id)
                permits.lent(Terms(message.spare, message.keep, message.learns))
                if given.done():  # whoever asked has left
                    self.give_back(permits, 1)
                else:
                    given.set_result(None)
            case Recall():
                self._send(Recalled(message.key, self._recalled(message.key)))
            case Stand():
                self._take_stand(message)
            case Failed() if message.id in self._asks:
                _, given = self._asks.pop(message.id)
                if not given.done():
                    given.set_exception(raised(message))
            case RunStarted() | RunToken() | RunFinished() | Counted() | Embedded() | Operated() | Exposed() | Failed():
                if (answers := self._answers.get(message.id)) is not None:
                    answers.put_nowait(message)
            case _:
                return False
        return True

    def lose(self) -> None:
        """The home is gone: whoever waits for it gets `Unavailable`."""
        self._gone = Unavailable("the process that this server's processes share has ended")
        for _, given in self._asks.values():
            if not given.done():
                given.set_exception(self._gone)
        for id, answers in self._answers.items():
            answers.put_nowait(Failed(id, "Unavailable", self._gone.message))

    def permits_for(self, config: ModelConfig, facts: Callable[[], Facts]) -> LentPermits:
        """The permits of a deployment, which the home has; as of `polyroute.routing.stack.PermitsFor`."""
        if (before := self._named.get(config.id)) is not None:
            before.retire()
        key = next(self._ids)
        permits = self._permits[key] = self._named[config.id] = LentPermits(config.id, self, key, config.max_queue)
        permits.stands(*self._stood.get(config.id, (0, 0, 0)))
        return permits

    async def ask(self, permits: LentPermits, caller: str, deadline: float | None, *, ahead: bool) -> None:
        """See `polyroute.routing.lent_permits.Lender`."""
        if self._gone is not None:
            raise self._gone
        id, given = next(self._ids), asyncio.get_running_loop().create_future()
        self._asks[id] = (permits, given)
        self._send(Ask(id, permits.key, permits.name, caller, deadline, ahead))
        try:
            await given
        except asyncio.CancelledError:
            if given.done() and not given.cancelled() and given.exception() is None:  # both in the same moment
                self.give_back(permits, 1)
            else:
                self._send(Withdraw(id))
            raise

    def give_back(self, permits: LentPermits, count: int) -> None:
        """See `polyroute.routing.lent_permits.Lender`."""
        if count > 1:
            self._tell_anew(permits.key)
        self._send(GiveBack(permits.key, count))

    def judged(self, permits: LentPermits, began: float, *, overloaded: bool) -> None:
        """See `polyroute.routing.lent_permits.Lender`."""
        self._send(Judged(permits.key, began, overloaded))

    def tell_busy(self) -> None:
        """Tells the home what has changed since the last time: permits in use here, and spare ones."""
        busy = {key: (permits.name, permits.here, permits.spare) for key, permits in list(self._permits.items())}
        changed = {key: now for key, now in busy.items() if self._busy.get(key, ("", 0, 0))[1:] != now[1:]}
        gone = {key: (name, 0, 0) for key, (name, *_) in self._busy.items() if key not in busy}
        if changed or gone:
            self._send(Busy({**changed, **gone}))
        self._busy = busy

    def status(self, model: str) -> BackendStatus:
        """How a local model stands, as the home last said."""
        return self._local.get(model) or BackendStatus(ModelState.LOADING, "not known yet")

    async def run(self, model: str, fingerprint: str, call: Call) -> AsyncGenerator[Event, None]:
        """Has the home answer a call by a local model; closing the stream ends the work there."""
        with self._asked() as (id, answers):
            self._send(Run(id, model, fingerprint, told(call)))
            over, taken = False, 0
            try:
                while True:
                    match await answers.get():
                        case RunStarted(route=route):
                            yield Started(route)
                        case RunToken(token=token):
                            yield token
                            taken += 1
                            if taken % _TAKEN == 0:
                                self._send(More(id, _TAKEN))
                        case RunFinished(finished=finished):
                            over = True
                            yield finished
                            return
                        case Failed() as failure:
                            over = True
                            raise raised(failure)
            finally:
                if not over:
                    self._send(Withdraw(id))

    async def count_tokens(self, model: str, call: Call) -> TokenCount:
        """Counts the tokens of a call's input by a local model."""
        answer = await self._request(lambda id: Count(id, model, told(call)))
        assert isinstance(answer, Counted)  # noqa: S101 - the home answers nothing else
        return TokenCount(answer.tokens, answer.context_length)

    async def embed(self, source: str, text: str) -> bytes:
        """The vector of a text; raises `NoEmbedding`."""
        try:
            answer = await self._request(lambda id: Embed(id, source, text))
        except PolyrouteError as error:
            raise NoEmbedding(error.message) from error
        assert isinstance(answer, Embedded)  # noqa: S101 - the home answers nothing else
        if answer.why_not:
            raise NoEmbedding(answer.why_not)
        return answer.vector

    async def operate(self, method: str, request: bytes) -> bytes:
        """Has the home answer a call of `AdminService`, in protobuf's form both ways; raises what the home raises."""
        answer = await self._request(lambda id: Operate(id, method, request))
        assert isinstance(answer, Operated)  # noqa: S101 - the home answers nothing else
        return answer.response

    async def scrape(self, accept: str, names: Sequence[str]) -> AsyncGenerator[bytes, None]:
        """The text of `/metrics` of the whole server, in parts; see `polyroute.server.rest.health.Expose`."""
        with self._asked() as (id, answers):
            self._send(Scrape(id, accept, tuple(names)))
            last = False
            try:
                while not last:
                    answer = await answers.get()
                    if isinstance(answer, Failed):
                        last = True
                        raise raised(answer)
                    assert isinstance(answer, Exposed)  # noqa: S101 - the home answers nothing else
                    last = answer.last
                    yield answer.part
            finally:
                if not last:
                    self._send(Withdraw(id))

    async def _request(self, message: Callable[[int], ToHome]) -> _Answer:
        with self._asked() as (id, answers):
            self._send(message(id))
            over = False
            try:
                answer = await answers.get()
                over = True
            finally:
                if not over:
                    self._send(Withdraw(id))
            if isinstance(answer, Failed):
                raise raised(answer)
            return answer

    def _recalled(self, key: int) -> int:
        permits = self._permits.get(key)
        if permits is None:
            return 0
        self._tell_anew(key)
        return permits.recalled()

    def _tell_anew(self, key: int) -> None:
        """Spare permits go back, and the home counts them as idle no more: how many are is news, whatever it was."""
        if (told := self._busy.get(key)) is not None:
            self._busy[key] = (*told[:2], _UNTOLD)

    def _asked(self) -> _Asked:
        if self._gone is not None:
            raise self._gone
        return _Asked(next(self._ids), self._answers)

    def _take_stand(self, stand: Stand) -> None:
        self._local.update(stand.local)
        for name, standing in stand.deployments.items():
            now = (standing.elsewhere, standing.queued, standing.max_concurrency)
            self._stood[name] = now
            if (permits := self._named.get(name)) is not None:
                permits.stands(*now)


class _Asked:
    """Answers to one question, for as long as the block lasts."""

    def __init__(self, id: int, open: dict[int, asyncio.Queue[_Answer]]) -> None:
        self._id = id
        self._open = open

    def __enter__(self) -> tuple[int, asyncio.Queue[_Answer]]:
        answers: asyncio.Queue[_Answer] = asyncio.Queue()
        self._open[self._id] = answers
        return self._id, answers

    def __exit__(self, *_: object) -> None:
        del self._open[self._id]
