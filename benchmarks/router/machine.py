"""What a run is made on: the machine, the commit, and the versions of what matters to its speed."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

from benchmarks.rig.processes import ROOT

_PACKAGES: Final = ("grpcio", "protobuf", "aiohttp", "uvloop")


@dataclass(frozen=True, slots=True)
class Machine:
    """Of one run: the processor's name, how many cores there are, the commit, and versions by package.

    `load` is the load average of the minute before: above nearly 0, others were at work.
    """

    processor: str
    cores: int
    kernel: str
    python: str
    commit: str
    versions: dict[str, str]
    load: float


def this_machine() -> Machine:
    """The one that this runs on."""
    return Machine(
        _processor(),
        os.cpu_count() or 1,
        platform.release(),
        platform.python_version(),
        _commit(),
        {package: version(package) for package in _PACKAGES},
        os.getloadavg()[0],
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _commit() -> str:
    """Short, with a + where files differ from it; `unknown` outside a repository."""
    command = ["git", "describe", "--always", "--dirty=+"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
