"""The operator's commands, over the admin address; those on the cache stand in `cache`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import click

from polyroute.client.cli.options import POSITIVE, Server, admin_options, json_option, text
from polyroute.client.cli.printing import plain, print_json
from polyroute.client.cli.running import run

if TYPE_CHECKING:
    from polyroute.client.admin import AdminClient
    from polyroute.client.models import ModelDescription
    from polyroute.client.operations import Reloaded, Rollout

T = TypeVar("T")

reason_option = click.option("--reason", type=text, default="", help="Why; kept in the rollout's history.")
route_argument = click.argument("route", type=text)


def ask(server: Server, call: Callable[[AdminClient], Awaitable[T]]) -> T:
    """What one call answers."""

    async def work() -> T:
        async with server.admin() as client:
            return await call(client)

    return run(work())


@click.command()
@click.argument("model", type=text)
@click.option("--wait/--no-wait", default=True, help="Return once the model is loaded (default), or at once.")
@json_option
@admin_options
def load(model: str, wait: bool, as_json: bool, server: Server) -> None:
    """Load MODEL now, or reach for it if it is remote."""
    _show_model(ask(server, lambda admin: admin.load(model, wait=wait)), as_json)


@click.command()
@click.argument("model", type=text)
@click.option("--grace", type=POSITIVE, metavar="SECONDS", help="How long its calls may take to finish.")
@json_option
@admin_options
def unload(model: str, grace: float | None, as_json: bool, server: Server) -> None:
    """Let MODEL finish its calls, then free its memory."""
    _show_model(ask(server, lambda admin: admin.unload(model, grace_s=grace)), as_json)


def _show_model(model: ModelDescription, as_json: bool) -> None:
    if as_json:
        print_json(model)
    else:
        click.echo(plain(f"{model.id}: {model.state}" + (f": {model.detail}" if model.detail else "")))


@click.command()
@click.option("--dry-run", is_flag=True, help="Check only: print the problems and change nothing.")
@json_option
@admin_options
def reload(dry_run: bool, as_json: bool, server: Server) -> None:
    """Read the configuration again and swap it in; a file with mistakes changes nothing (exit code 2)."""
    done = ask(server, lambda admin: admin.reload(dry_run=dry_run))
    if as_json:
        print_json(done)
    else:
        click.echo(plain("\n".join(reloaded(done, dry_run=dry_run))))
    if done.problems:
        raise click.exceptions.Exit(2)


def reloaded(done: Reloaded, *, dry_run: bool) -> list[str]:
    """What a reload did, or would do, in lines."""
    if done.problems:
        return [str(problem) for problem in done.problems]
    changes = {"added": done.added, "removed": done.removed, "rebuilt": done.rebuilt, "adjusted": done.adjusted}
    lines = [f"{what}: {', '.join(models)}" for what, models in changes.items() if models]
    if not lines:
        changed = (
            "changed: no model, but routes or settings" if done.changed else "nothing changed since it was read last"
        )
        lines = ["ok" if dry_run else changed]
    return lines + [f"takes a restart: {key}" for key in done.needs_restart]


@click.group()
def rollout() -> None:
    """Watch or steer a rollout."""


@rollout.command("status")
@route_argument
@json_option
@admin_options
def rollout_status(route: str, as_json: bool, server: Server) -> None:
    """Show where ROUTE's rollout stands, and its history."""
    _show_rollout(ask(server, lambda admin: admin.rollout(route)), as_json)


@rollout.command("pause")
@route_argument
@reason_option
@json_option
@admin_options
def rollout_pause(route: str, reason: str, as_json: bool, server: Server) -> None:
    """Hold ROUTE's rollout at its step."""
    _show_rollout(ask(server, lambda admin: admin.pause_rollout(route, reason=reason)), as_json)


@rollout.command("resume")
@route_argument
@reason_option
@json_option
@admin_options
def rollout_resume(route: str, reason: str, as_json: bool, server: Server) -> None:
    """Let ROUTE's paused rollout go on."""
    _show_rollout(ask(server, lambda admin: admin.resume_rollout(route, reason=reason)), as_json)


@rollout.command("promote")
@route_argument
@reason_option
@json_option
@admin_options
def rollout_promote(route: str, reason: str, as_json: bool, server: Server) -> None:
    """Give ROUTE's new version all traffic, without further evidence."""
    _show_rollout(ask(server, lambda admin: admin.promote_rollout(route, reason=reason)), as_json)


@rollout.command("rollback")
@route_argument
@reason_option
@json_option
@admin_options
def rollout_rollback(route: str, reason: str, as_json: bool, server: Server) -> None:
    """Give ROUTE's old version all traffic."""
    _show_rollout(ask(server, lambda admin: admin.roll_back_rollout(route, reason=reason)), as_json)


def _show_rollout(found: Rollout, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    lines = [
        f"{found.route}: {found.from_variant} -> {found.to_variant}: {found.state}, step {found.step + 1} of "
        f"{len(found.steps)}, {found.weight:.1%} of traffic"
    ]
    lines += [
        f"  {e.metric}: {e.difference:+.3g} in [{e.lower:.3g}, {e.upper:.3g}], e-value {e.e_value:.3g} "
        f"({e.samples_from} and {e.samples_to} answers)"
        for e in found.evidence
    ]
    for change in found.history:
        moment = change.time.isoformat(timespec="seconds") if change.time else "-"
        lines.append(f"  {moment} {change.to_state}, step {change.step + 1}: {change.reason} ({change.actor})")
    click.echo(plain("\n".join(lines)))
