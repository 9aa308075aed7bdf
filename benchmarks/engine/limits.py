"""What this machine can do at most: memory bandwidth and matrix products, measured with torch.

Run as a module it prints both as JSON: `python -m benchmarks.engine.limits THREADS`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

_READ_BYTES = 512 * 2**20
_REPEATS = 7
_SHAPES = ((256, 2048, 2048), (512, 2048, 8192), (1024, 2048, 2048), (2048, 2048, 2048), (256, 576, 1536))


@dataclass(frozen=True)
class Limits:
    """Bytes read from memory a second, and float32 operations of matrix products a second (largest over shapes)."""

    bytes_per_s: float
    flops_per_s: float

    def tokens_per_s(
        self, layers: int, head: int, weight_bytes: float, callers: int, prompt: int, output: int
    ) -> float:
        """A bound on tokens/s for `callers` at once, if nothing but weights were read and multiplied.

        `layers` and `head` are counts of weights; `weight_bytes` is the size of one. A prompt meets the head once. Each
        of the `output` - 1 steps that decode costs the longer of reading all weights and multiplying with them.
        """
        prefill = callers * 2 * (layers * prompt + head) / self.flops_per_s
        read = (layers + head) * weight_bytes / self.bytes_per_s
        step = max(read, callers * 2 * (layers + head) / self.flops_per_s)
        return callers * output / (max(prefill, read) + (output - 1) * step)


def measure(threads: int) -> Limits:
    """Both limits with so many threads; some seconds."""
    import torch

    torch.set_num_threads(threads)
    block = torch.ones(_READ_BYTES // 4)
    read = _READ_BYTES / _fastest(block.sum)
    flops = 0.0
    for rows, inner, columns in _SHAPES:
        left, right = torch.randn(rows, inner), torch.randn(columns, inner)
        product = torch.empty(rows, columns)
        taken = _fastest(lambda a=left, b=right, out=product: torch.mm(a, b.T, out=out))
        flops = max(flops, 2 * rows * inner * columns / taken)
    return Limits(read, flops)


def _fastest(work: Callable[[], object]) -> float:
    work()
    times = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


if __name__ == "__main__":
    found = measure(int(sys.argv[1]))
    print(json.dumps([found.bytes_per_s, found.flops_per_s]))
