"""Measures what an answer from the cache costs: by tier, at several sizes, beside floors, no cache, and a peer's."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import grpc

from benchmarks.cache import bare, contenders, table
from benchmarks.cache.contenders import Contender, rows
from benchmarks.cache.serving import Serve
from benchmarks.cache.table import Row
from benchmarks.rig import asking, peers, programs
from benchmarks.rig.programs import CannotRun, Figures
from benchmarks.rig.starting import floor
from benchmarks.rig.workload import GENERATE, Ask, filled

_LITELLM_KEYS = 1000
_QUICK = {"entries": [100], "callers": [2], "rounds": 1, "seconds": 0.3}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures what the command line asks for and prints a table; returns 1 where something could not be measured."""
    options = _parser().parse_args(arguments)
    options.incomplete = False
    if options.quick:
        for name, value in _QUICK.items():
            setattr(options, name, value)
    if shutil.which("taskset") is None or (os.cpu_count() or 1) < 2:
        _say("this needs two cores and taskset (util-linux)")
        return 1
    with tempfile.TemporaryDirectory(prefix="bench-cache-", dir=options.folder) as folder:
        try:
            found = _measure(Path(folder), options)
        except CannotRun as error:
            _say(f"cannot go on: {error}")
            return 1
    print(table.markdown(found, options.callers), flush=True)
    if options.json:
        figures = [
            {"contender": name, "protocol": protocol, "callers": callers, "rounds": [asdict(one) for one in rounds]}
            for (name, protocol, callers), rounds in found.items()
        ]
        machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
        options.json.write_text(json.dumps({"machine": machine, "figures": figures}, indent=1) + "\n")
    return int(options.incomplete)


def _measure(folder: Path, options: argparse.Namespace) -> dict[Row, list[Figures]]:
    """Everything is started first, so that rounds go through all of them in turn."""
    programs.build(folder)
    ask = Ask(options.tokens)
    found: dict[Row, list[Figures]] = {}
    with ExitStack() as stack:
        upstream = stack.enter_context(programs.upstream(folder)).port
        listed, folders = _ours(stack, folder, options, upstream)
        listed = [*_floors(stack, folder, ask, listed[0], listed[1]), *listed]
        listed += _litellm(stack, folder, options, upstream)
        if options.pause:
            _say("everything is ready: press Enter to measure")
            sys.stdin.readline()
        for number in range(options.rounds):
            for contender in list(listed):
                try:
                    for callers in options.callers:
                        figures = _load(folder, contender, callers, options.seconds, number + 1)
                        found.setdefault((contender.name, contender.protocol, callers), []).append(figures)
                except CannotRun as error:
                    _say(f"{contender.name}, {contender.protocol}: left out from here on: {error}")
                    listed.remove(contender)
                    options.incomplete = True
        for name, answers in folders.items():
            _say(f"diskcache alone, {name}")
            alone = [bare.measure(answers, options.seconds) for _ in range(options.rounds)]
            found[f"diskcache alone, {name}", "calls", options.callers[0]] = alone
    return found


def _ours(
    stack: ExitStack, folder: Path, options: argparse.Namespace, upstream: int
) -> tuple[list[Contender], dict[str, Path]]:
    """The router with each tier alone at each size, and without a cache; and the folders of the disk tiers."""
    listed: list[Contender] = []
    folders: dict[str, Path] = {}
    ask = Ask(options.tokens)
    for tier in options.tiers:
        for entries in options.entries:
            name = f"{tier}, {entries:,} entries"
            url = ""
            if tier == "redis":
                try:
                    url = stack.enter_context(contenders.redis(folder))
                except CannotRun as error:
                    _say(f"{name}: left out: {error}")
                    continue
            _say(f"{name}: filling")
            sized = {"size": "64GiB"} if tier == "memory" else {}
            place = folder / f"{tier}-{entries}"
            place.mkdir()
            cache = {"tiers": {tier: sized}}
            serve = Serve(cache, str(place), upstream, entries, options.tokens, url)
            listed += rows(name, ask, stack.enter_context(contenders.serving(serve)), keys=entries, cached=True)
            if tier == "disk":
                folders[f"{entries:,} entries"] = place / "answers"
    place = folder / "off"
    place.mkdir()
    off = Serve({"mode": "off"}, str(place), upstream, tokens=options.tokens)
    listed += rows("no cache, fast peer", ask, stack.enter_context(contenders.serving(off)), keys=10**9)
    return listed, folders


def _floors(stack: ExitStack, folder: Path, ask: Ask, over_grpc: Contender, over_http: Contender) -> list[Contender]:
    """Servers that answer with the bytes of a hit."""
    hit = {"grpc": folder / "hit.grpc", "http": folder / "hit.http"}
    with grpc.insecure_channel(f"127.0.0.1:{over_grpc.target.port}") as channel:
        hit["grpc"].write_bytes(channel.unary_unary(GENERATE)(filled(ask.grpc(), 0), timeout=60))
    hit["http"].write_bytes(asking.answer(over_http.target.port, ask))
    listed = []
    for name in ("grpc echo", "grpc echo of messages", "http echo"):
        ports, _ = stack.enter_context(floor(name, answer=hit[name.split()[0]]))
        listed += rows(name, ask, ports)
    return listed


def _litellm(stack: ExitStack, folder: Path, options: argparse.Namespace, upstream: int) -> list[Contender]:
    listed: list[Contender] = []
    if not (options.peers / "litellm").exists():
        _say("LiteLLM is left out: python -m benchmarks.rig.install_peers installs it")
        return listed
    keys = min(_LITELLM_KEYS, *options.entries)
    for kind in ("local", "disk"):
        name = f"LiteLLM, {'memory' if kind == 'local' else kind}, {keys:,} entries"
        _say(f"{name}: filling")
        ports = stack.enter_context(contenders.litellm(options.peers, folder, upstream, kind))
        for number in range(keys):
            asking.answer(ports["http"], Ask(options.tokens), number)
        listed += rows(name, Ask(options.tokens), ports, keys=keys)
    return listed


def _load(folder: Path, contender: Contender, callers: int, seconds: float, seed: int) -> Figures:
    before = contender.hits()
    figures = programs.load(folder, contender.target, callers, seconds, seed)
    if contender.admin and contender.hits() - before < figures.answers:
        raise CannotRun(f"{contender.name}: fewer hits than answers: something was not found")
    line = f"{figures.per_s:9,.0f} a second, p50 {figures.p50_us:,.0f} us"
    _say(f"{contender.name}, {contender.protocol}, {callers} callers: {line}")
    return figures


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench-cache ARGS=...", description=__doc__)
    add = parser.add_argument
    add("--entries", type=_numbers, default=[1000, 1_000_000], help="numbers, comma separated (default: 1000,1000000)")
    add("--tiers", type=lambda text: text.split(","), default=["memory", "disk", "redis"], help="default: all of them")
    add("--callers", type=_numbers, default=[1, 32], help="numbers, comma separated (default: 1,32)")
    add("--tokens", type=int, default=16, help="of each answer, all stored as deltas (default: %(default)s)")
    add("--seconds", type=float, default=3.0, help="of each load (default: %(default)s)")
    add("--rounds", type=int, default=3, help="how often each is measured; medians count (default: %(default)s)")
    add("--folder", type=Path, help="where answers are kept meanwhile, some 3 GB at a million (default: the system's)")
    add("--peers", type=Path, default=peers.FOLDER, help="where peers are installed (default: %(default)s)")
    add("--json", type=Path, metavar="FILE", help="write the figures of all rounds there too")
    add("--pause", action="store_true", help="once all is filled, wait for Enter: time to make the machine quiet")
    add("--quick", action="store_true", help="few entries, short: shows that all runs, measures nothing")
    return parser


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is ended
    sys.exit(main())
