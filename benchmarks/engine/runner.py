"""The inside of a runner process: reads loads from stdin as JSON lines, has an engine serve them, answers on stdout.

The first line it writes says that the engine is loaded; each line that it reads then is a load, answered by a line with
the times of all tokens. Whatever the engine itself prints goes to stderr. Only the standard library is imported, since
the interpreter may be another engine's.
"""

from __future__ import annotations

import json
import os
import re
import resource
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

_MIB = 2**20


@dataclass(frozen=True)
class Options:
    """What a runner is started with: at most `sequences` of at most `context` tokens each at once.

    `device` is `cpu` or `cuda`.
    """

    folder: str
    precision: str
    threads: int
    sequences: int
    context: int
    demo: bool = False
    device: str = "cpu"


@dataclass(frozen=True)
class Asked:
    """A request, known by its place in the load."""

    index: int
    prompt: list[int]
    tokens: int
    after: int


def step_tokens(options: Options) -> int:
    """The most tokens of prompts that a step may read: the default of our engine on that device."""
    return 2048 if options.device == "cuda" else 512


class Runner(Protocol):
    """An engine that serves whole loads."""

    note: str
    cached: int  # prompt tokens of all requests so far that it did not compute, since it had them from before

    def run(self, asks: list[Asked], submitted: Callable[[int], None], token: Callable[[int], None]) -> None:
        """Serves `asks`; calls `submitted` and, for each token of an answer, `token`, with the request's index."""


class Stepped:
    """A `Runner` over engines that are driven step by step."""

    note = ""
    cached = 0

    def submit(self, ask: Asked) -> None:
        """Queues a request."""
        raise NotImplementedError

    def step(self) -> Iterable[int]:
        """Works on; returns the index of a request for each token made."""
        raise NotImplementedError

    def run(self, asks: list[Asked], submitted: Callable[[int], None], token: Callable[[int], None]) -> None:
        """See `Runner`."""
        waiting = sorted(asks, key=lambda ask: ask.after, reverse=True)
        made, wanted = 0, sum(ask.tokens for ask in asks)
        while made < wanted:
            while waiting and waiting[-1].after <= made:
                ask = waiting.pop()
                submitted(ask.index)
                self.submit(ask)
            for index in self.step():
                made += 1
                token(index)


def main(start: Callable[[Options], Runner]) -> None:
    """Runs this process as a runner of the engine that `start` loads."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def reply(**fields: Any) -> None:
        print(json.dumps(fields), file=replies, flush=True)

    began = time.perf_counter()
    runner = start(Options(**json.loads(sys.argv[1])))
    peak = peak_mb()
    reply(event="ready", load_s=time.perf_counter() - began, load_peak_mb=peak, note=runner.note)
    for line in sys.stdin:
        reply(event="done", **_serve(runner, json.loads(line)["asks"]))
    replies.flush()
    os._exit(0)  # engines with threads of their own do not all let go


def _serve(runner: Runner, asks: list[tuple[list[int], int, int]]) -> dict[str, Any]:
    began = [0.0] * len(asks)
    times: list[list[float]] = [[] for _ in asks]
    clock = time.perf_counter

    def submitted(index: int) -> None:
        began[index] = clock()

    def token(index: int) -> None:
        times[index].append(clock())

    _forget_peak()
    start = clock()
    runner.run([Asked(i, *ask) for i, ask in enumerate(asks)], submitted, token)
    wall = clock() - start
    for (_, wanted, _), made in zip(asks, times, strict=True):
        if len(made) != wanted:
            raise RuntimeError(f"an answer of {wanted} tokens was asked for, one of {len(made)} came")
    if runner.cached:  # then this was an easier load than it says
        raise RuntimeError(f"{runner.cached} tokens of the prompts came from a cache, but no two prompts are alike")
    return {"wall_s": wall, "began": began, "times": times, "peak_mb": peak_mb()}


def peak_mb() -> float:
    """The most memory so far, or since `_forget_peak`, in MiB: what torch held of the GPU, where it uses one; else the
    resident set of this process and its children."""
    if gpu := _gpu():
        return float(gpu.max_memory_reserved() / _MIB)
    if processes := _processes():
        found = (re.search(r"VmHWM:\s+(\d+) kB", (process / "status").read_text()) for process in processes)
        return sum(int(match[1]) for match in found if match) / 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / _MIB if sys.platform == "darwin" else most / 1024


def _forget_peak() -> None:
    """Begins the peak anew, where the system can (Linux, proc(5)); else it is that of the process's whole life."""
    if gpu := _gpu():
        gpu.reset_peak_memory_stats()
    for process in _processes():
        (process / "clear_refs").write_text("5")


def _gpu() -> Any:
    """`torch.cuda` where this process computes with it, else None."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None


def _processes() -> list[Path]:
    """This process and its children in proc(5), none where there is no such thing."""
    own = Path("/proc/self")
    threads = list((own / "task").glob("*/children"))
    children = {pid for thread in threads for pid in thread.read_text().split()}
    return [own, *(Path("/proc") / pid for pid in children)] if threads else []
