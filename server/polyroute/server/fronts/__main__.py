"""A front process: `python -m polyroute.server.fronts LINK TURNS`, two file descriptors, started by its home."""

from __future__ import annotations

import os
import socket
import sys


def main() -> int:
    """Serves until the home says otherwise, or is gone; returns the exit code."""
    # gRPC, imported below, must not warn of forks: none is without an exec.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    from polyroute.server.cli import run
    from polyroute.server.fronts.front import Front

    link, turns = (int(argument) for argument in sys.argv[1:])
    return run(Front.serve(socket.socket(fileno=link), turns))


if __name__ == "__main__":
    sys.exit(main())
