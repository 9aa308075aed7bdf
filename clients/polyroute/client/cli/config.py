"""`polyroute config`: the configuration as it runs, and how its last reload went."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from polyroute.client.cli.admin import ask, reloaded
from polyroute.client.cli.options import Server, admin_options, json_option
from polyroute.client.cli.printing import plain, print_json

if TYPE_CHECKING:
    from polyroute.client.operations import LastReload, RunningConfig


@click.command()
@click.option("--defaults", is_flag=True, help="Show what the file leaves out as well.")
@json_option
@admin_options
def config(defaults: bool, as_json: bool, server: Server) -> None:
    """Show the configuration in force as YAML: times in seconds, sizes in bytes, secrets hidden."""
    found = ask(server, lambda admin: admin.config(defaults=defaults))
    if as_json:
        print_json(found)
        return
    click.echo(plain("\n".join(f"# {line}" for line in _remarks(found))))
    click.echo(plain(found.yaml.rstrip("\n")))


def _remarks(found: RunningConfig) -> list[str]:
    since = "" if found.in_force_since is None else f", since {found.in_force_since.isoformat(timespec='seconds')}"
    lines = [f"{found.file or 'no file'}{since}, hash {found.config_hash}"]
    return lines if found.last_reload is None else [*lines, *_last(found.last_reload)]


def _last(last: LastReload) -> list[str]:
    at = "" if last.time is None else f" at {last.time.isoformat(timespec='seconds')}"
    head = f"last reload{at} by {last.trigger}"
    if last.outcome is None:
        return [f"{head} failed: {last.error}"]
    said = reloaded(last.outcome, dry_run=False)
    return [f"{head}: {said[0]}", *said[1:]]
