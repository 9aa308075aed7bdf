"""Between the router's messages and the engine: what comes in starts, pauses and ends answers."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NoReturn, TypeAlias

from polyroute.backends.local.messages import (
    Cancel,
    Count,
    Counted,
    Dropped,
    Eager,
    FromWorker,
    Output,
    Pause,
    Rejected,
    Report,
    Resume,
    Step,
    Submit,
    Threads,
    ToWorker,
)
from polyroute.backends.local.worker.constraint import Constraint, Constraints
from polyroute.backends.local.worker.engine import Engine
from polyroute.backends.local.worker.prompts import PromptReader, Refused
from polyroute.core.backend import EngineStatus

REPORT_S: Final = 0.5
"""Time between two reports of how the engine is, in seconds; none come while nothing changes."""

Inbox: TypeAlias = "queue.SimpleQueue[ToWorker | Prepared]"


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that has been read; `tokens` is None where that failed, which the router knows already."""

    submit: Submit
    tokens: list[int] | None
    constraint: Constraint | None = None


class Conversation:
    """The worker's side of all answers.

    Prompts and response formats are read in a thread of their own, since that may take long; everything else, all state
    included, belongs to the thread that calls `run`, in which `set_threads` is called too.
    """

    def __init__(
        self,
        engine: Engine,
        reader: PromptReader,
        constraints: Constraints,
        send: Callable[[FromWorker], None],
        inbox: Inbox,
        set_threads: Callable[[int], None],
    ) -> None:
        self._engine = engine
        self._reader = reader
        self._constraints = constraints
        self._send = send
        self._inbox = inbox
        self._set_threads = set_threads
        self._why_eager = ""
        self._unread: queue.SimpleQueue[Submit | Count] = queue.SimpleQueue()
        self._reading: set[int] = set()  # answers whose prompt is still being read
        self._withdrawn: set[int] = set()  # those of them that were cancelled meanwhile
        self._told: EngineStatus | None = None
        self._told_at = 0.0

    def run(self) -> NoReturn:
        """Takes messages and steps the engine for ever."""
        self._why_eager = self._engine.why_eager  # as the router was told when the model was ready
        threading.Thread(target=self._read_prompts, name="prompts", daemon=True).start()
        while True:
            self._take(self._next())
            while self._engine.busy:
                while not self._inbox.empty():
                    self._take(self._inbox.get())
                self._step()
                if time.monotonic() - self._told_at >= REPORT_S:
                    self._report(self._engine.status())

    def _next(self) -> ToWorker | Prepared:
        """Waits for a message; meanwhile, once, the router learns how the engine came to rest."""
        status = self._engine.status()
        if status != self._told:
            try:
                return self._inbox.get(timeout=REPORT_S)
            except queue.Empty:
                self._report(status)
        return self._inbox.get()

    def _report(self, status: EngineStatus) -> None:
        self._told, self._told_at = status, time.monotonic()
        self._send(Report(status))

    def _step(self) -> None:
        outputs: list[Output] = []
        for output in self._engine.step():
            if isinstance(output, Rejected):
                self._send(output)
            else:
                outputs.append(output)
        if outputs:
            self._send(Step(tuple(outputs)))
        if self._engine.why_eager != self._why_eager:
            self._why_eager = self._engine.why_eager
            self._send(Eager(self._why_eager))

    def _take(self, message: ToWorker | Prepared) -> None:
        match message:
            case Submit():
                self._reading.add(message.id)
                self._unread.put(message)
            case Count():
                self._unread.put(message)
            case Cancel():
                self._cancel(message.id)
            case Prepared():
                self._begin(message)
            case Pause():
                self._engine.pause(message.id)
            case Resume():
                self._engine.resume(message.id)
            case Threads():
                self._set_threads(message.number)

    def _begin(self, prepared: Prepared) -> None:
        submit = prepared.submit
        self._reading.discard(submit.id)
        if submit.id in self._withdrawn:
            self._withdrawn.discard(submit.id)
            self._send(Dropped(submit.id, 0))
        elif prepared.tokens is not None:
            refused = self._engine.submit(
                submit.id,
                prepared.tokens,
                submit.sampling,
                submit.stop,
                continues=submit.input.messages is None,
                constraint=prepared.constraint,
            )
            if refused is not None:
                self._send(refused)

    def _cancel(self, id: int) -> None:
        if id in self._reading:
            self._withdrawn.add(id)
        elif (completion_tokens := self._engine.cancel(id)) is not None:
            self._send(Dropped(id, completion_tokens))

    def _read_prompts(self) -> None:
        while True:
            self._read(self._unread.get())

    def _read(self, message: Submit | Count) -> None:
        tokens, constraint = None, None
        try:
            if isinstance(message, Count):
                self._send(Counted(message.id, len(self._reader.count(message.input))))
            else:
                if message.response_format is not None:
                    constraint = self._constraints.compile(message.response_format)
                tokens = self._reader.read(message.input)
        except Refused as refusal:
            self._send(Rejected(message.id, refusal.kind, refusal.field, refusal.message, refusal.quoted))
        except Exception as error:  # noqa: BLE001 - a chat template is a program: what ends it ends this answer alone
            kind = type(error).__name__  # without its text, which may quote the prompt
            self._send(Rejected(message.id, "failed", "", f"it cannot be read ({kind})"))
        if isinstance(message, Submit):
            self._inbox.put(Prepared(message, tokens, constraint))
