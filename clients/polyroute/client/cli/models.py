"""`polyroute models`: the registry as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from polyroute.client.cli.options import Server, json_option, server_options
from polyroute.client.cli.printing import print_json, print_table, say
from polyroute.client.cli.running import run

if TYPE_CHECKING:
    from polyroute.client.models import ModelDescription

COLUMNS = ("id", "type", "version", "state", "in flight", "queued")


@click.command()
@json_option
@server_options
def models(as_json: bool, server: Server) -> None:
    """List the models and routes that the server answers for; `*` marks the default."""
    found = run(_models(server))
    if as_json:
        print_json(found)
        return
    print_table(COLUMNS, [_row(model) for model in found])
    for model in found:
        if model.detail:
            say(f"{model.id}: {model.detail}")


async def _models(server: Server) -> list[ModelDescription]:
    async with server.client() as client:
        return [model async for model in client.models()]


def _row(model: ModelDescription) -> tuple[str, ...]:
    name = f"{model.id} *" if model.default else model.id
    return (name, model.type, model.version or "-", model.state, str(model.in_flight), str(model.queued))
