"""What the machine has for models: its memory, or its container's, and its GPUs; found without importing torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_CGROUP: Final = Path("/sys/fs/cgroup")
_DEVICES: Final = Path("/dev")


def machine_bytes(cgroup: Path = _CGROUP) -> int:
    """Memory of the machine, or of its container where that has less (cgroup v2, `memory.max`)."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(total, int((cgroup / "memory.max").read_text()))
    except (OSError, ValueError):  # no such limit here, or `max`
        return total


def visible_gpus(environ: Mapping[str, str] = os.environ, devices: Path = _DEVICES) -> int:
    """How many CUDA devices a worker can see: of `CUDA_VISIBLE_DEVICES`, else as NVIDIA's driver shows."""
    chosen = environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        names = [name.strip() for name in chosen.split(",")]
        # One that is not valid hides all that follow (CUDA C++ Programming Guide, "CUDA Environment Variables").
        return next((place for place, name in enumerate(names) if name in ("", "-1")), len(names))
    return sum(1 for device in devices.glob("nvidia[0-9]*") if device.name.removeprefix("nvidia").isdecimal())


def ledger_name(device: str) -> str:
    """The name under which a device's memory is counted: `cuda` is `cuda:0`, and MPS has the machine's own."""
    return {"cuda": "cuda:0", "mps": "cpu"}.get(device, device)
