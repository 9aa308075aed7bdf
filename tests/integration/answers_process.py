"""A process that keeps, finds and invalidates answers beside others, and checks what it finds; run by tests.

Arguments: a folder, for how many seconds, and a seed. What an answer says is made of its key and of a time just
after its call began, so that any mix-up shows; the file `since` has a time for each model, before which nothing may be
found.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import random
import sys
import time
from pathlib import Path

from polyroute.core.event import Finished, FinishReason, Token
from polyroute.routing.cache.answers import Answers
from polyroute.routing.cache.codec import StoredAnswer
from polyroute.routing.cache.disk_tier import DiskTier
from polyroute.routing.cache.guarded import GuardedTier
from polyroute.routing.cache.invalidations import Invalidations
from polyroute.routing.cache.memory_tier import MemoryTier
from polyroute.routing.cache.terms import Terms
from polyroute.server.wire.stored import AnswerCodec

MODELS = ("a", "b")
SINCE_BYTES = 8 * len(MODELS)


def text_of(canonical: str, begun: int) -> str:
    """Every third answer lies in a file of its own."""
    word = f"{canonical} {begun} "
    return word * (5000 if hash_of(canonical) % 3 == 0 else 3)


def hash_of(canonical: str) -> int:
    return sum(canonical.encode())


class Since:
    """The times before which no answer of a model may be found any more, in nanoseconds that all processes share."""

    def __init__(self, folder: Path) -> None:
        fd = os.open(folder / "since", os.O_RDWR)
        self._times = memoryview(mmap.mmap(fd, SINCE_BYTES)).cast("Q")
        os.close(fd)

    def __getitem__(self, model: str) -> int:
        return self._times[MODELS.index(model)]

    def raise_to(self, model: str, begun: int) -> None:
        place = MODELS.index(model)
        self._times[place] = max(self._times[place], begun)


async def main(folder: Path, seconds: float, seed: int) -> None:
    rng, since, until = random.Random(seed), Since(folder), time.monotonic() + seconds
    disk = GuardedTier(DiskTier(folder / "answers", 1 << 20, get_s=60, put_s=60))
    answers = Answers(MemoryTier(1 << 19), [disk], Invalidations(folder / "invalidations"), AnswerCodec())
    await answers.start()
    found = kept = wrong = stale = invalidated = 0
    print("begun", flush=True)
    while time.monotonic() < until:
        model, canonical = rng.choice(MODELS), f"request {rng.randrange(30)}"
        oldest = since[model]
        await asyncio.sleep(0)  # a call comes in a later turn of the loop than what its caller heard before it
        key = answers.key(model, f"{model} {canonical}".encode())
        begun = time.monotonic_ns()  # not before the key: what is invalidated in between must not make it look older
        hit = await answers.find(key, Terms(model))
        if hit is not None:
            found += 1
            text = "".join(token.text for token in hit.answer.tokens)
            made = int(text.split(" ", 3)[2])
            wrong += text != text_of(canonical, made) or hit.answer.model != model
            stale += made < oldest
        else:
            tokens = (Token(text_of(canonical, begun)),)
            finished = Finished(FinishReason.STOP)
            answer = StoredAnswer(key.canonical, model, "v", tokens, finished, time.time(), 0.1)
            kept += answers.keep(key, answer, Terms(model))
        if rng.random() < 0.01:
            before = time.monotonic_ns()
            await answers.invalidate(model)
            since.raise_to(model, before)
            invalidated += 1
        if rng.random() < 0.02:
            await answers.flush()
    await answers.close()
    counts = f"found={found} kept={kept} wrong={wrong} stale={stale} invalidated={invalidated}"
    print(f"{counts} errors={disk.counts.errors}", flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])))
