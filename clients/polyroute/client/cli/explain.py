"""`polyroute explain`: the plan that a request would get."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from polyroute.client.cli.options import (
    Asked,
    Server,
    generate_options,
    json_option,
    read_prompt,
    server_options,
    text,
)
from polyroute.client.cli.printing import plain, print_json
from polyroute.client.cli.running import run

if TYPE_CHECKING:
    from polyroute.client.models import Plan


@click.command()
@click.argument("prompt", type=text, callback=read_prompt)
@generate_options
@json_option
@server_options
def explain(prompt: str, asked: Asked, as_json: bool, server: Server) -> None:
    """Show where PROMPT (`-`: standard input) would be answered, and why; runs nothing.

    Options as of `polyroute generate`: those that change the plan or the use of the cache matter.
    """
    plan = run(_plan(prompt, asked, server))
    if as_json:
        print_json(plan)
    else:
        click.echo(plain(str(plan)))


async def _plan(prompt: str, asked: Asked, server: Server) -> Plan:
    given = asked.prompt(prompt)
    async with server.client() as client:
        return await client.explain(given, **asked.options())
