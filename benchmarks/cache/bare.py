"""diskcache alone: what a lookup in the disk tier's folder costs without anything around it."""

from __future__ import annotations

import itertools
import random
import time
from pathlib import Path
from typing import Final

import diskcache

from benchmarks.rig.programs import Figures
from polyroute.routing.cache.disk import BytesDisk

_KEYS: Final = 20_000


def measure(folder: Path, seconds: float) -> Figures:
    """Looks up keys that are there, one after the other, on one thread."""
    with diskcache.Cache(str(folder), disk=BytesDisk, sqlite_mmap_size=0) as cache:
        keys = list(itertools.islice(cache.iterkeys(), _KEYS))
        random.Random(1).shuffle(keys)
        times: list[float] = []
        size, begun = 0, time.perf_counter()
        for key in itertools.cycle(keys):
            before = time.perf_counter()
            found = cache.get(key)
            after = time.perf_counter()
            assert isinstance(found, bytes)
            times.append((after - before) * 1e6)
            size += len(found)
            if after - begun > seconds:
                break
    count = len(times)
    per_s, each = count / (after - begun), size / count
    mean, times = sum(times) / count, sorted(times)
    p50, p90, p99 = (times[count * part // 100] for part in (50, 90, 99))
    summed = (mean, p50, p90, p99, times[-1])
    return Figures(count, count, per_s, 0.0, each, *summed, *summed)
