"""`polyroute feedback`: what somebody thought of an answer."""

from __future__ import annotations

import click

from polyroute.client.cli.options import Server, json_option, server_options, text
from polyroute.client.cli.printing import print_json
from polyroute.client.cli.running import run

_WORDS = {"yes": True, "true": True, "no": False, "false": False}


def value_of(given: str) -> bool | float:
    """`yes` or `no`, or a number."""
    if given.lower() in _WORDS:
        return _WORDS[given.lower()]
    try:
        return float(given)
    except ValueError:
        raise click.BadParameter(f"`{given}` is none of yes, no, and a number") from None


@click.command(context_settings={"ignore_unknown_options": True})  # so that -1 is a value
@click.argument("request_id", type=text)
@click.argument("metric", type=text)
@click.argument("value", type=value_of)
@json_option
@server_options
def feedback(request_id: str, metric: str, value: bool | float, as_json: bool, server: Server) -> None:
    """Record VALUE (yes, no or a number) under METRIC for the answer to REQUEST_ID.

    The same again changes nothing; another value takes the place of the first.
    """
    known = run(_record(request_id, metric, value, server))
    if as_json:
        print_json({"matched": known})
    else:
        click.echo("recorded" if known else "recorded; no experiment knows that request yet")


async def _record(request_id: str, metric: str, value: bool | float, server: Server) -> bool:
    async with server.client() as client:
        return await client.record_feedback(request_id, metric, value)
