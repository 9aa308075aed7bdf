"""The outside of a runner process: starts it, hands it loads, reads what came of them, ends it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.engine.engines import Engine
from benchmarks.engine.runner import Options
from benchmarks.engine.workload import Case

ROOT = Path(__file__).parents[2]
_TAIL_LINES = 6
_END_S = 20


class RunnerFailed(Exception):
    """A runner process has died or could not load its engine; the text is the end of what it wrote on stderr."""


class RunnerProcess:
    """One engine with one model in a process of its own; closing it ends the process."""

    def __init__(self, engine: Engine, options: Options) -> None:
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 - closed with the process
        threads = str(options.threads)
        self._process = subprocess.Popen(
            [engine.python, "-m", f"benchmarks.engine.runners.{engine.module}", json.dumps(asdict(options))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "PYTHONWARNINGS": "ignore"},
        )
        self.ready = self._reply()

    def __enter__(self) -> RunnerProcess:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _where: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait(_END_S)
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                stream.close()

    def serve(self, case: Case) -> dict[str, Any]:
        """What came of `case`; fields as `runner.main` writes them. Raises `RunnerFailed`."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(case.encoded()) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # why, stands in its stderr
        return self._reply()

    def _reply(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            reply: dict[str, Any] = json.loads(line)
            return reply
        code = self._process.wait(_END_S)
        self._errors.seek(0)
        said = [text for text in self._errors.read().splitlines() if text.strip()]
        self._errors.close()
        raise RunnerFailed(f"ended with {code}: " + "\n".join(said[-_TAIL_LINES:]))


def imports(python: str, package: str) -> bool:
    """Whether the interpreter `python` is there and finds `package`."""
    probe = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({package!r}) is None)"
    try:
        return subprocess.run([python, "-c", probe], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def run_module(module: str, *arguments: str) -> None:
    """Runs a module of ours to its end in a process of its own, so that this one stays small."""
    subprocess.run([sys.executable, "-m", module, *arguments], check=True, cwd=ROOT, stdout=sys.stderr)
