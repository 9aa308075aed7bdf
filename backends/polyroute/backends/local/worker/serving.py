"""The worker's life: load, then steps and messages in turn until the router is gone."""

from __future__ import annotations

import copy
import os
import queue
import sys
import threading
from dataclasses import dataclass
from typing import NoReturn, TypeAlias, TypedDict

import torch

from polyroute.backends.local.messages import (
    Cancel,
    Count,
    Counted,
    Dropped,
    Load,
    LoadFailed,
    Output,
    Ready,
    Rejected,
    Step,
    Submit,
    ToWorker,
)
from polyroute.backends.local.worker.detokenize import Vocabulary
from polyroute.backends.local.worker.engine import Engine
from polyroute.backends.local.worker.failures import LoadError
from polyroute.backends.local.worker.link import Link
from polyroute.backends.local.worker.loading import Loaded, load
from polyroute.backends.local.worker.progress import Reporter
from polyroute.backends.local.worker.prompts import PromptReader, Refused
from polyroute.core.request import Sampling

Inbox: TypeAlias = "queue.SimpleQueue[ToWorker | Prepared]"


def serve(order: Load, link: Link, inbox: Inbox) -> None:
    """Loads the model and serves it for ever; returns only where it cannot be loaded."""
    torch.set_num_threads(max(1, _cores() - 1))  # counts for the thread that calls it; the router needs one itself
    try:
        loaded = load(order, Reporter(link.send))
        limits = _limits(order, loaded.device)
        engine = Engine(
            loaded.model,
            Vocabulary(loaded.tokenizer),
            context_length=loaded.context_length,
            eos=loaded.eos,
            defaults=loaded.defaults,
            **limits,
        )
        _prove(engine, loaded)
    except LoadError as error:
        link.send(LoadFailed(str(error)))
        return
    worker = _Worker(engine, PromptReader(copy.deepcopy(loaded.tokenizer), loaded.context_length), link, inbox)
    link.send(
        Ready(
            version=loaded.version,
            context_length=loaded.context_length,
            chat=worker.reader.chat,
            greedy_default=not loaded.defaults.sample,
            device=loaded.device,
            dtype=loaded.dtype,
            max_sequences=limits["max_sequences"],
            weights=loaded.weights,
            path=engine.path,
            why_apart=engine.why_apart,
            kv_cache_tokens=engine.kv_capacity_tokens,
        )
    )
    worker.run()


class _Limits(TypedDict):
    max_sequences: int
    max_batch_tokens: int
    kv_cache_bytes: int | None


def _limits(order: Load, device: str) -> _Limits:
    """What bounds the engine: as ordered, else as is right for the kind of device."""
    most, tokens = (256, 2048) if device.startswith("cuda") else (64, 512)
    return {
        "max_sequences": order.max_sequences or most,
        "max_batch_tokens": order.max_batch_tokens or tokens,
        "kv_cache_bytes": order.kv_cache_bytes,
    }


def _cores() -> int:
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))  # what the container or taskset leaves
    return os.cpu_count() or 1


def _prove(engine: Engine, loaded: Loaded) -> None:
    """Has the model answer once, so that ready means ready."""
    engine.submit(0, [loaded.tokenizer.bos_token_id or 0], Sampling(max_tokens=1, temperature=0))
    for output in engine.step():
        if isinstance(output, Rejected):
            raise LoadError(f"the model loads but does not run: {output.message}")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prompt that has been read; `tokens` is None where that failed, which the router knows already."""

    submit: Submit
    tokens: list[int] | None


class _Worker:
    """Between the router's messages and the engine.

    Prompts are read in a thread of their own, since long ones take time; everything else, all state included, belongs
    to the thread that calls `run`.
    """

    def __init__(self, engine: Engine, reader: PromptReader, link: Link, inbox: Inbox) -> None:
        self.reader = reader
        self._engine = engine
        self._link = link
        self._inbox = inbox
        self._unread: queue.SimpleQueue[Submit | Count] = queue.SimpleQueue()
        self._reading: set[int] = set()  # answers whose prompt is still being read
        self._withdrawn: set[int] = set()  # those of them that were cancelled meanwhile

    def run(self) -> NoReturn:
        threading.Thread(target=self._read_prompts, name="prompts", daemon=True).start()
        while True:
            self._take(self._inbox.get())
            while self._engine.busy:
                while not self._inbox.empty():
                    self._take(self._inbox.get())
                self._step()

    def _step(self) -> None:
        outputs: list[Output] = []
        for output in self._engine.step():
            if isinstance(output, Rejected):
                self._link.send(output)
            else:
                outputs.append(output)
        if outputs:
            self._link.send(Step(tuple(outputs)))

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
                self._begin(message.submit, message.tokens)

    def _begin(self, submit: Submit, tokens: list[int] | None) -> None:
        self._reading.discard(submit.id)
        if submit.id in self._withdrawn:
            self._withdrawn.discard(submit.id)
            self._link.send(Dropped(submit.id, 0))
        elif tokens is not None:
            continues = submit.input.messages is None
            refused = self._engine.submit(submit.id, tokens, submit.sampling, submit.stop, continues=continues)
            if refused is not None:
                self._link.send(refused)

    def _cancel(self, id: int) -> None:
        if id in self._reading:
            self._withdrawn.add(id)
        elif (completion_tokens := self._engine.cancel(id)) is not None:
            self._link.send(Dropped(id, completion_tokens))

    def _read_prompts(self) -> None:
        while True:
            self._read(self._unread.get())

    def _read(self, message: Submit | Count) -> None:
        tokens: list[int] | None = None
        try:
            if isinstance(message, Count):
                self._link.send(Counted(message.id, len(self.reader.count(message.input))))
            else:
                tokens = self.reader.read(message.input)
        except Refused as refusal:
            self._link.send(Rejected(message.id, refusal.kind, refusal.field, refusal.message))
        except Exception as error:  # noqa: BLE001 - a chat template is a program: what ends it ends this answer alone
            kind = type(error).__name__  # without its text, which may quote the prompt
            self._link.send(Rejected(message.id, "failed", "", f"its prompt cannot be read ({kind})"))
        if isinstance(message, Submit):
            self._inbox.put(Prepared(message, tokens))
