"""Runs a command's calls: what fails ends in one line and an exit code, what is interrupted cancels its call first."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import click

from polyroute.client.cli.printing import plain
from polyroute.client.errors import InvalidRequest, RequestFailed

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`. Ctrl-C cancels it, and waits until it is; a `RequestFailed` becomes the command's error."""
    try:
        return asyncio.run(work)
    except RequestFailed as error:
        raise Failed(describe(error)) from error


def describe(error: RequestFailed) -> str:
    """An error as a terminal shows it, with what to do about it where that is known."""
    lines = [plain(str(error))]
    if isinstance(error, InvalidRequest) and any(v.field == "messages" for v in error.violations):
        lines.append("--raw sends the prompt as plain text, for models without a chat template")
    if error.retry_after_s is not None:
        lines.append(f"try again in {error.retry_after_s:g} s")
    return "\n".join(lines)


class Failed(click.ClickException):
    """A call that failed; exit code 1."""

    def show(self, file: Any = None) -> None:
        click.echo(f"polyroute: {self.message}", err=True)
