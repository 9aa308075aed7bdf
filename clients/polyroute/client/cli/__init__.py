"""The command line, `polyroute`: each command is imported only when it is called."""

from __future__ import annotations

import io
import sys

import click

from polyroute.client.cli.commands import Commands


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="polyroute", prog_name="polyroute")
def polyroute() -> None:
    """One Generate call for every model: run a server, ask it, and see how it answers."""


def main() -> None:
    """Runs the command line and exits: 0 done, 1 the call failed, 2 wrong usage, 130 interrupted."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # an answer may hold what the terminal's encoding does not
    try:
        code = polyroute.main(prog_name="polyroute", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except click.Abort:
        code = 130
    sys.exit(code if isinstance(code, int) else 0)
