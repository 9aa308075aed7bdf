"""A Postgres server of a test's own, in a folder of its own; skipped where the program is missing, except in CI."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def programs() -> Path:
    """The folder of Postgres's programs: Debian keeps them off the PATH."""
    found = [
        *sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")),
        *map(Path, filter(None, [shutil.which("initdb")])),
    ]
    if found:
        return found[-1].parent
    if os.environ.get("CI") == "true":
        pytest.fail("Postgres is missing: install what tests/packages.txt lists")
    pytest.skip("Postgres is not installed (Debian: postgresql)")


@contextmanager
def postgres() -> Iterator[str]:
    """The URL of an empty database, on a Unix socket alone."""
    folder = Path(tempfile.mkdtemp(prefix="polyroute-pg-"))  # a socket's path must be short
    user = "nobody" if os.getuid() == 0 else None  # it refuses to run as root
    try:
        if user is not None:
            entry = pwd.getpwnam(user)
            os.chown(folder, entry.pw_uid, entry.pw_gid)
        _run(user, "initdb", "-D", f"{folder}/data", "-U", "polyroute", "-A", "trust", "-N")
        options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"
        _run(user, "pg_ctl", "-D", f"{folder}/data", "-w", "-l", f"{folder}/log", "-o", options, "start")
        try:
            yield f"postgresql://polyroute@/postgres?host={folder}"
        finally:
            _run(user, "pg_ctl", "-D", f"{folder}/data", "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(user: str | None, program: str, *arguments: str) -> None:
    command = [str(programs() / program), *arguments]
    done = subprocess.run(command, user=user, capture_output=True, text=True, timeout=120, cwd="/", check=False)
    assert done.returncode == 0, f"{program}: {done.stdout}{done.stderr}"
