"""How much memory a device has to spare for keys and values, and how much this process takes of it."""

from __future__ import annotations

import resource
from pathlib import Path

import torch

_OF_GPU = 0.85  # of what is free once the weights are there; the rest is for what a step computes with
_OF_SYSTEM = 0.25  # the machine's memory is for the other models and everybody else too
_LEAST = 1 << 26
_CGROUP = Path("/sys/fs/cgroup")


def spare_bytes(device: torch.device) -> int:
    """Bytes that keys and values may take on `device`, where nobody has said how many."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return max(_LEAST, int(free * _OF_GPU))
    return max(_LEAST, int(_available() * _OF_SYSTEM))


def taken_bytes(device: torch.device) -> tuple[int, int]:
    """Bytes that this process holds of the device, 0 when not known, and those that the device has, 0 for the machine's
    own memory."""
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device), torch.cuda.mem_get_info(device)[1]
    try:
        resident_pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:  # not Linux
        return 0, 0
    return resident_pages * resource.getpagesize(), 0


def _available() -> int:
    """Memory that this process can still have: of the machine, or of its container where that has less."""
    free = [_machine()]
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        if limit != "max":
            free.append(int(limit) - int((_CGROUP / "memory.current").read_text()))
    except (OSError, ValueError):
        pass  # no such limit here
    return min(free)


def _machine() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass  # not Linux
    return 1 << 33
