"""`polyroute top`: what each model does now, as a table that follows it."""

from __future__ import annotations

import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import click

from polyroute.client.cli.options import POSITIVE, json_option
from polyroute.client.cli.printing import plain, print_table
from polyroute.client.cli.running import Failed

if TYPE_CHECKING:
    from rich.table import Table

    from polyroute.client.exposition import Samples
    from polyroute.client.load import ModelLoad

_TIMEOUT_S: Final = 10.0
_COLUMNS: Final = (
    *("model", "in flight", "queued", "calls/s", "tokens/s"),
    *("first token p50", "p99", "cache hits", "errors"),
)


@click.command()
@click.option(
    "--http-address",
    "-a",
    "address",
    envvar="POLYROUTE_HTTP_ADDRESS",
    default="127.0.0.1:8080",
    show_default=True,
    show_envvar=True,
    metavar="HOST:PORT",
    help="Server whose /metrics to read; https://host too.",
)
@click.option(
    "--interval", type=POSITIVE, default=2.0, show_default=True, metavar="SECONDS", help="Time between two readings."
)
@click.option("--once", is_flag=True, help="Print one table, of one interval, and leave.")
@json_option
def top(address: str, interval: float, once: bool, as_json: bool) -> None:
    """Follow each model: calls and tokens a second, time to first token, cache hits and errors.

    Reads /metrics and nothing else. Without a terminal, or with --json, it tells once.
    """
    url = _url(address)
    readings = _readings(url, interval)
    if as_json:
        click.echo(json.dumps([asdict(load) for load in next(readings)], indent=2))
    elif once or not sys.stdout.isatty():
        print_table(_COLUMNS, [_row(load) for load in next(readings)])
    else:
        _follow(url, interval, readings)


def _url(address: str) -> str:
    url = address if address.startswith(("http://", "https://")) else f"http://{address}"
    return f"{url.rstrip('/')}/metrics"


def _asked(url: str) -> str:
    """The scrape, of what is needed alone; a server that knows no `name[]` tells all."""
    from polyroute.client.load import NEEDED

    return f"{url}?{urllib.parse.urlencode([('name[]', name) for name in NEEDED])}"


def _readings(url: str, interval: float) -> Iterator[list[ModelLoad]]:
    """What happened in each interval, for ever."""
    from polyroute.client.load import loads

    before, at = _read(url), time.monotonic()
    while True:
        time.sleep(interval)
        now, moment = _read(url), time.monotonic()
        yield loads(before, now, moment - at)
        before, at = now, moment


def _read(url: str) -> Samples:
    from polyroute.client.exposition import Samples

    try:
        with urllib.request.urlopen(_asked(url), timeout=_TIMEOUT_S) as answer:  # noqa: S310 - http or https: see `_url`
            return Samples(answer.read().decode())
    except urllib.error.HTTPError as error:
        raise Failed(f"{plain(url)} answers {error.code}; is it the HTTP address of a server?") from error
    except urllib.error.URLError as error:
        hint = "is a server running there? `polyroute serve` starts one"
        raise Failed(f"{plain(url)} cannot be reached ({plain(str(error.reason))}); {hint}") from error
    except (OSError, ValueError) as error:
        raise Failed(f"{plain(url)} cannot be read: {plain(str(error))}") from error


def _follow(url: str, interval: float, readings: Iterator[list[ModelLoad]]) -> None:
    """Until Ctrl-C. A server that has answered once is waited for when it goes away."""
    from rich.live import Live
    from rich.text import Text

    answered = False
    with Live(f"reading {plain(url)} ...", auto_refresh=False, screen=True) as live:
        try:
            while True:
                try:
                    table = _table(next(readings))
                except Failed as error:
                    if not answered:
                        raise
                    live.update(Text(f"{error}; trying again every {interval:g} s; Ctrl-C leaves"), refresh=True)
                    time.sleep(interval)
                    readings = _readings(url, interval)
                    continue
                answered = True
                table.caption = f"{plain(url)}, every {interval:g} s; Ctrl-C leaves"
                live.update(table, refresh=True)
        except KeyboardInterrupt:
            return


def _table(reading: list[ModelLoad]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in _COLUMNS:
        table.add_column(column, justify="left" if column == "model" else "right")
    for load in reading:
        idle = not (load.calls or load.in_flight)
        table.add_row(*map(Text, _row(load)), style="red" if load.errors else "dim" if idle else None)
    return table


def _row(load: ModelLoad) -> tuple[str, ...]:
    return (
        plain(load.model),
        f"{load.in_flight} of {load.permits}",
        str(load.queued),
        f"{load.calls:.1f}",
        f"{load.tokens:.1f}",
        _seconds(load.first_token_p50_s),
        _seconds(load.first_token_p99_s),
        _share(load.hits),
        _share(load.errors),
    )


def _seconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
