"""The list of commands, by name: our own, and those of the `polyroute.commands` entry points."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import click

SIGPIPE_EXIT = 141  # 128 + SIGPIPE, as a shell reports a command whose reader has left

_CLI = "polyroute.client.cli"
OWN = {
    "cache": (f"{_CLI}.cache:cache", "Show or clear the answer cache."),
    "chat": (f"{_CLI}.chat:chat", "Hold a conversation with a model."),
    "config": (f"{_CLI}.config:config", "Show the configuration as it runs."),
    "experiment": (f"{_CLI}.experiment:experiment", "Report what an experiment has shown."),
    "explain": (f"{_CLI}.explain:explain", "Show the plan that a request would get, and why."),
    "feedback": (f"{_CLI}.feedback:feedback", "Record what somebody thought of an answer."),
    "generate": (f"{_CLI}.generate:generate", "Answer one prompt."),
    "load": (f"{_CLI}.admin:load", "Load a model now."),
    "models": (f"{_CLI}.models:models", "List the models and routes."),
    "reload": (f"{_CLI}.admin:reload", "Read the configuration again."),
    "rollout": (f"{_CLI}.admin:rollout", "Watch or steer a rollout."),
    "top": (f"{_CLI}.top:top", "Follow what each model does now."),
    "unload": (f"{_CLI}.admin:unload", "Free a model's memory."),
}
ELSEWHERE = {"serve": "Run the server.", "check": "Check a models.yaml."}
"""One-line help of the commands that only entry points know, so that listing them imports nothing."""


class Commands(click.Group):
    """Imports a command when it is called, and says what to install when that fails."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*OWN, *_points()})

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in OWN:
            module, attribute = OWN[name][0].split(":")
            command = getattr(importlib.import_module(module), attribute)
        elif name in (points := _points()):
            with _server_installed(lambda: name):
                command = points[name].load()
        else:
            return None
        if not isinstance(command, click.Command):
            raise click.ClickException(f"`{name}` is not a command: {command!r}")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, OWN[name][1] if name in OWN else ELSEWHERE.get(name, "")) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with _server_installed(lambda: ctx.invoked_subcommand or ""):
                result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except BrokenPipeError:
            # The reader has left: nothing more to say, and nothing to flush at exit either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise click.exceptions.Exit(SIGPIPE_EXIT) from None


@contextmanager
def _server_installed(name: Callable[[], str]) -> Iterator[None]:
    """Where a package of others is missing, says which command needs it and what to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        if not error.name or error.name.split(".")[0] == "polyroute":
            raise
        missing = f"`polyroute {name()}` needs the server: pip install 'polyroute[server,local]' ({error})"
        raise click.ClickException(missing) from error


def _points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group="polyroute.commands")}
