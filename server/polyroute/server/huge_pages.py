"""What a start leaves in memory, in huge pages where Linux can: so an address in it is found sooner."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

HUGE_BYTES: Final = 2 * 1024 * 1024
_COLLAPSE: Final = 25
"""`MADV_COLLAPSE` of madvise(2): since Linux 6.1, and an error before."""
_FULL: Final = 0.875
"""The share of a mapping that has to be there: what a huge page adds to it is taken from nobody."""
_SMAPS: Final = Path("/proc/self/smaps")
_ENABLED: Final = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_MAPPING: Final = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ (\d+) *(.*)")


def gather() -> None:
    """Puts the heap of this process into huge pages, where the system has them and whoever runs it has not said never;
    what is allocated later comes as ever.

    Takes 1 to 3 ms for each, and longer where memory is in pieces; other threads go on meanwhile.
    """
    try:
        import ctypes

        if "[never]" in _ENABLED.read_text():  # which this call to the system would pass by
            return
        madvise = ctypes.CDLL(None).madvise
        mappings = list(full(_SMAPS.read_text(encoding="latin-1").splitlines()))  # files' names are any bytes
    except (ImportError, OSError, AttributeError):  # a Python that was built without libffi; not Linux
        return
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for begin, end in mappings:
        madvise(begin, end - begin, _COLLAPSE)  # what it refuses stays as it is


def full(smaps: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Where huge pages can lie in mappings of the heap that are there nearly whole: the first address and the one
    after the last.

    `smaps` are the lines of /proc/PID/smaps (proc(5)). The heap is what can be written and is of no file; of a stack,
    little is there.
    """
    begin = end = 0
    for line in smaps:
        if (found := _MAPPING.fullmatch(line)) is not None:
            mode, inode, name = found[3], found[4], found[5]
            own = mode == "rw-p" and inode == "0" and name in ("", "[heap]")
            begin, end = (int(found[1], 16), int(found[2], 16)) if own else (0, 0)
        elif end and line.startswith("Rss:") and int(line.split()[1]) * 1024 >= _FULL * (end - begin):
            first, last = -(-begin // HUGE_BYTES) * HUGE_BYTES, end // HUGE_BYTES * HUGE_BYTES
            if first < last:
                yield first, last
