"""A process that uses the cache's tier on disk, run by tests. Arguments: folder, what to do, how often."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from pathlib import Path

from polyroute.routing.cache.disk_tier import DiskTier
from polyroute.routing.cache.guarded import GuardedTier
from polyroute.routing.cache.terms import Moment
from polyroute.routing.cache.tier import Entry, Label

LABEL = Label("m", "v1", Moment())


def blob(number: int) -> bytes:
    """Every third answer lies in a file of its own."""
    return f"answer {number} ".encode() * (10_000 if number % 3 == 0 else 20)


async def main(folder: str, task: str, count: int) -> None:
    if task == "unprivileged":
        os.setgid(65534)
        os.setuid(65534)
    if task == "full":
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    store = GuardedTier(DiskTier(Path(folder), 1 << 30, get_s=60, put_s=60))
    await store.start()
    wrong = found = kept = 0
    for i in range(count):
        number = i % 50
        kept += await store.put([Entry(f"k{number}", blob(number), LABEL, None)])
        for seen in (number, (number * 7) % 50):
            value = await store.get(f"k{seen}")
            found += value is not None
            wrong += value not in (None, blob(seen))
        if i == 0:
            print("begun", flush=True)
    await store.close()
    print(f"kept={kept} found={found} wrong={wrong} errors={store.counts.errors}", flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
