"""Measures what the router costs a call, beside bare servers, no router, and other routers: in turns, on one core."""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.rig import peers, programs
from benchmarks.rig.collector import collector
from benchmarks.rig.floors import FLOORS
from benchmarks.rig.programs import CannotRun
from benchmarks.router import footprint, gate, report, results, variants
from benchmarks.router.cases import DIRECT, OURS, OURS_DISK, PEERS, TITLES, chosen
from benchmarks.router.contenders import Place, everyone
from benchmarks.router.footprint import Wanted
from benchmarks.router.machine import this_machine
from benchmarks.router.results import Results
from benchmarks.router.rounds import Found, Plan, measure, say
from benchmarks.router.summary import lines

_QUICK: Final = {"callers": [2], "rounds": 1, "seconds": 0.3, "keys": 20, "calls": 10, "streams": 20, "models": [1, 10]}
_CHECK: Final = {
    "cases": list(dict.fromkeys(name for name, _ in gate.BOUNDS)),
    "callers": [gate.CALLERS],
    "contenders": [*FLOORS, OURS],
    "rounds": 3,
    "seconds": 1.0,
}
_GROUPS: Final = {"floor": (*FLOORS, DIRECT), "ours": (OURS, OURS_DISK), "peers": PEERS}
_PROTOCOLS: Final = {"grpc": "grpc", "rest": "http"}
_FOOTPRINT: Final = "footprint"
_MODELS: Final = "models"
_WORKERS: Final = "workers"
_FILES: Final = ("--json", "--read", "--folder", "--peers")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures what the command line asks for and prints tables; returns 1 where something could not be measured."""
    options = _parser().parse_args(arguments)
    for asked, chosen_for in ((options.quick, _QUICK), (options.check, _CHECK)):
        for name, value in chosen_for.items() if asked else ():
            setattr(options, name, value)
    if options.read:
        found = results.read(options.read)
    elif (run := _run(options)) is not None:
        found = run
    else:
        return 1
    print(report.tables(found), flush=True)
    if options.json:
        results.save(found, options.json)
    if options.docs:
        report.write(found)
    slower = gate.broken(lines(found.found)) if options.check else []
    for said in slower:
        say(f"slower than it should be: {said}")
    if options.check and not slower:
        say(f"not slower than it should be: {len(gate.BOUNDS)} bounds hold")
    return int(bool(found.found.failures or slower))


def _run(options: argparse.Namespace) -> Results | None:
    if shutil.which("taskset") is None or (os.cpu_count() or 1) < 2:
        say("this needs two cores and taskset (util-linux)")
        return None
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # thousands of callers, each with a connection
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {programs.PEER_CORE})  # spans arrive here
    try:
        with tempfile.TemporaryDirectory(prefix="bench-router-", dir=options.folder) as folder:
            programs.build(Path(folder))
            with programs.upstream(Path(folder)) as upstream, collector() as spans:
                return _measure(Place(Path(folder), upstream, spans, options.peers), options)
    except CannotRun as error:
        say(f"cannot go on: {error}")
        return None
    finally:
        os.sched_setaffinity(0, cores)


def _measure(place: Place, options: argparse.Namespace) -> Results:
    machine, protocols = this_machine(), [_PROTOCOLS[name] for name in options.over]
    cases = chosen(options.cases, protocols)
    plan = Plan(cases, options.contenders, options.rounds, options.seconds, options.keys, options.callers)
    found = measure(plan, place) if cases else Found()
    footprints: list[footprint.Footprint] = []
    if _FOOTPRINT in options.cases:
        wanted = Wanted(options.rounds, options.calls, options.seconds, options.calls_seconds, options.streams)
        footprints, failures = footprint.measure(options.contenders, protocols, wanted, place, say)
        found.failures.extend(failures)
    compared = _compare(place, protocols, options, found)
    return Results(machine, _command(sys.argv[1:]), plan.rounds, plan.seconds, found, footprints, compared)


def _command(arguments: Sequence[str]) -> str:
    """The command that makes such a run, without where its files were."""
    kept, rest = [], iter(arguments)
    for argument in rest:
        if argument in _FILES:
            next(rest, None)
        elif argument.partition("=")[0] not in _FILES:
            kept.append(argument)
    return " ".join(["python -m benchmarks.router", *kept])


def _compare(
    place: Place, protocols: list[str], options: argparse.Namespace, found: Found
) -> dict[str, list[variants.Variant]]:
    callers = options.callers[:1]  # the usual number of each, where none is given
    wanted = {
        _MODELS: variants.many_models(options.models, *callers),
        _WORKERS: variants.many_workers(options.workers, *callers),
    }
    compared = {}
    for comparison in (wanted[name] for name in wanted if name in options.cases and OURS in options.contenders):
        try:
            of_these = variants.measure(comparison, protocols, options.rounds, options.seconds, place, say)
            compared[comparison.title] = of_these
        except CannotRun as error:
            found.failures.append(f"{comparison.title}: {error}")
            say(found.failures[-1])
    return compared


def _names(text: str) -> list[str]:
    """Contenders by name or by group; raises `ArgumentTypeError`."""
    names: list[str] = []
    for part in text.split(","):
        if part not in _GROUPS and part not in everyone():
            raise argparse.ArgumentTypeError(f"`{part}` is none of {', '.join((*_GROUPS, *everyone()))}")
        names += _GROUPS.get(part, (part,))
    return names


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _some_of(known: Sequence[str]) -> Any:
    def parse(text: str) -> list[str]:
        for part in text.split(","):
            if part not in known:
                raise argparse.ArgumentTypeError(f"`{part}` is none of {', '.join(known)}")
        return text.split(",")

    return parse


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.router", description=__doc__)
    add = parser.add_argument
    cases = [*TITLES, _FOOTPRINT, _MODELS, _WORKERS]
    add("--cases", type=_some_of(cases), default=cases, help=f"of {','.join(cases)} (default: all)")
    add("--over", type=_some_of([*_PROTOCOLS]), default=[*_PROTOCOLS], help="grpc, rest (default: both)")
    groups = "groups or names, comma separated: floor, ours, peers (default: floor,ours)"
    add("--contenders", type=_names, default=_names("floor,ours"), help=groups)
    add(
        "--callers",
        type=_numbers,
        default=[],
        help="numbers, comma separated, for cases with several (default: those of each)",
    )
    add("--rounds", type=int, default=5, help="how often each is measured; medians count (default: %(default)s)")
    add("--seconds", type=float, default=2.0, help="of each load (default: %(default)s)")
    add("--keys", type=int, default=150, help="questions whose answers caches hold (default: %(default)s)")
    add("--calls", type=int, default=100_000, help="before memory is read again (default: %(default)s)")
    add("--calls-seconds", type=float, default=120.0, help="that those calls may take (default: %(default)s)")
    add("--streams", type=int, default=5_000, help="open at once, for the memory of one (default: %(default)s)")
    add("--models", type=_numbers, default=list(variants.SIZES), help="sizes of a registry (default: %(default)s)")
    add("--workers", type=_numbers, default=list(variants.WORKERS), help="numbers of processes (default: %(default)s)")
    add("--json", type=Path, metavar="FILE", help="write the figures of all rounds there too")
    add("--read", type=Path, metavar="FILE", help="take the figures of an earlier run from there, and measure nothing")
    add("--docs", action="store_true", help=f"write {report.PAGE.name} and its picture, too")
    add("--folder", type=Path, help="where servers keep their files meanwhile (default: the system's)")
    add("--peers", type=Path, default=peers.FOLDER, help="where peers are installed (default: %(default)s)")
    add("--check", action="store_true", help="measure little, and fail where the router is slower than it should be")
    add("--quick", action="store_true", help="short: shows that all runs, measures nothing")
    return parser


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is ended
    sys.exit(main())
