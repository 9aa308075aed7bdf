"""Installs the peers of `peers.txt`, each in an environment of its own: `python -m benchmarks.rig.install_peers`."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path
from typing import Final

from benchmarks.rig.peers import FOLDER

_LIST: Final = Path(__file__).with_name("peers.txt")


def main() -> None:
    """Installs those that are not there, or not as they are listed."""
    for name, packages in wanted().items():
        place, mark = FOLDER / name, FOLDER / name / "installed"
        if mark.exists() and mark.read_text().split() == packages:
            continue
        print(f"installing {' '.join(packages)}", file=sys.stderr, flush=True)
        venv.create(place, clear=True, with_pip=True)
        subprocess.run(
            [place / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", *packages], check=True
        )
        mark.write_text(" ".join(packages))


def wanted() -> dict[str, list[str]]:
    """The packages of each peer."""
    lines = [line for line in _LIST.read_text().splitlines() if line and not line.startswith("#")]
    return {name: packages.split() for name, _, packages in (line.partition(":") for line in lines)}


if __name__ == "__main__":
    main()
