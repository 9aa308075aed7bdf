"""What this machine can do at most: memory bandwidth and matrix products, measured with torch.

Run as a module it prints them as JSON: `python -m benchmarks.engine.limits THREADS DEVICE`, where the device may be
`auto`: a GPU where torch finds one, else the processor.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

_REPEATS = 7
_SHAPES = ((256, 2048, 2048), (512, 2048, 8192), (1024, 2048, 2048), (2048, 2048, 2048), (256, 576, 1536))
_GPU_SHAPES = ((256, 4096, 14336), (2048, 4096, 4096), (4096, 4096, 14336), (8192, 8192, 8192))


@dataclass(frozen=True)
class Limits:
    """Bytes read from memory a second, and operations of matrix products a second (largest over shapes).

    `device` is `cpu` or `cuda`, `name` what it calls itself; products are of `dtype`.
    """

    bytes_per_s: float
    flops_per_s: float
    device: str = "cpu"
    name: str = ""
    dtype: str = "float32"

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


def measure(threads: int, device: str) -> Limits:
    """The limits of `device` (`auto`, `cpu` or `cuda`), on the processor with so many threads; some seconds."""
    import torch

    torch.set_num_threads(threads)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    on_gpu = device == "cuda"
    settle = torch.cuda.synchronize if on_gpu else lambda: None
    dtype = torch.bfloat16 if on_gpu else torch.float32
    block = torch.ones((4 if on_gpu else 1) * 2**27, device=device)
    read = block.nbytes / _fastest(block.sum, settle)
    flops = 0.0
    for rows, inner, columns in _GPU_SHAPES if on_gpu else _SHAPES:
        left, right = (torch.randn(n, inner, device=device, dtype=dtype) for n in (rows, columns))
        product = torch.empty(rows, columns, device=device, dtype=dtype)
        taken = _fastest(lambda a=left, b=right, out=product: torch.mm(a, b.T, out=out), settle)
        flops = max(flops, 2 * rows * inner * columns / taken)
    name = torch.cuda.get_device_name() if on_gpu else ""
    return Limits(read, flops, device, name, str(dtype).removeprefix("torch."))


def _fastest(work: Callable[[], object], settle: Callable[[], Any]) -> float:
    """Seconds of the fastest run; `settle` waits until the device has done it."""
    work()
    times = []
    for _ in range(_REPEATS):
        settle()
        began = time.perf_counter()
        work()
        settle()
        times.append(time.perf_counter() - began)
    return min(times)


if __name__ == "__main__":
    print(json.dumps(asdict(measure(int(sys.argv[1]), sys.argv[2]))))
