"""A real server process, and client programs run against it, as a user would start them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
NODE_DIR = ROOT / "tests" / "e2e" / "node"
START_LIMIT_S = 170
Done: TypeAlias = subprocess.CompletedProcess[str]


@dataclass(frozen=True, slots=True)
class Running:
    """A server process, and where it listens."""

    process: subprocess.Popen[str]
    grpc: str
    http: str
    admin: str
    log: Path

    @property
    def url(self) -> str:
        return f"http://{self.http}"

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of a GET on the HTTP address."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def wait(self, condition: Callable[[], bool], what: str, limit_s: float = START_LIMIT_S) -> None:
        """Waits until `condition` holds; fails with the server's log when it ends or takes too long."""
        until = time.monotonic() + limit_s
        while time.monotonic() < until:
            if self.process.poll() is not None:
                pytest.fail(f"the server ended with {self.process.returncode} before {what}:\n{self.output()}")
            try:
                if condition():
                    return
            except OSError:
                pass  # not listening yet
            time.sleep(0.1)
        pytest.fail(f"{what} did not happen within {limit_s} s:\n{self.output()}")

    def wait_ready(self) -> None:
        self.wait(lambda: self.get("/readyz")[0] == 200, "it was ready")


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@contextmanager
def serving(folder: Path, *arguments: str, environ: dict[str, str] | None = None) -> Iterator[Running]:
    """`polyroute serve ARGUMENTS` on free ports with its cache in `folder`; ended when the block is left."""
    grpc, http, admin = free_address(), free_address(), free_address()
    log = folder / f"server-{grpc.rpartition(':')[2]}.log"
    command = [
        sys.executable, "-m", "polyroute.server",
        "--grpc-address", grpc, "--http-address", http, "--admin-address", admin, *arguments,
    ]  # fmt: skip
    env = {**os.environ, "POLYROUTE_CACHE_DIR": str(folder / "cache"), **(environ or {})}
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=env, cwd=folder, text=True)
    try:
        yield Running(process, grpc, http, admin, log)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
                raise


def run(command: list[str], *, environ: dict[str, str] | None = None, limit_s: float = 120) -> Done:
    """Runs a client program as a user would and returns what it printed."""
    env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", **(environ or {})}
    return subprocess.run(command, capture_output=True, text=True, timeout=limit_s, env=env, check=False)


def run_json(command: list[str]) -> dict[str, Any]:
    """Runs a client program that must succeed, and parses what it printed."""
    done = run(command)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    result = json.loads(done.stdout)
    assert isinstance(result, dict)
    return result
