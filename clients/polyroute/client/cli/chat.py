"""`polyroute chat`: a conversation in the terminal."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from polyroute.client.cli.options import Asked, Server, generate_options, server_options
from polyroute.client.cli.printing import Printer, say
from polyroute.client.cli.running import Failed, describe
from polyroute.client.errors import RequestFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from polyroute.client.client import Client

HELP = """\
/system TEXT   begin the conversation with this system message (no TEXT: with none)
/model NAME    go on with another model or route (no NAME: the server's default)
/clear         forget what was said
/help          show this
/quit          leave, as Ctrl-D does
Ctrl-C stops an answer that is coming, and leaves at the prompt."""
PROMPT = "> "


@click.command()
@generate_options
@server_options
def chat(asked: Asked, server: Server) -> None:
    """Hold a conversation with a model; /help shows what can be typed beside messages."""
    if asked.raw:
        raise click.UsageError("--raw makes no conversation")
    # One loop for the whole conversation, at rest while the user types: then Ctrl-C means the prompt.
    with asyncio.Runner() as runner:
        conversation = Conversation(runner, server.client(), asked)
        try:
            conversation.greet()
            conversation.hold()
        finally:
            runner.run(conversation.client.close())


class Conversation:
    """What was said so far, and with whom."""

    def __init__(self, runner: asyncio.Runner, client: Client, asked: Asked) -> None:
        self.client = client
        self._runner = runner
        self._asked = asked
        self._said: list[Mapping[str, str]] = []

    def greet(self) -> None:
        """Says who will answer; fails where nobody would."""
        try:
            model = self._runner.run(self.client.model(self._asked.model or ""))
        except RequestFailed as error:
            raise Failed(describe(error)) from error
        if sys.stdin.isatty():
            say(f"{model.id} ({model.state}) at {self.client.address}; /help shows what can be typed")

    def hold(self) -> None:
        """Reads and answers until the user leaves."""
        if sys.stdin.isatty():
            with contextlib.suppress(ModuleNotFoundError):  # not on every platform
                importlib.import_module("readline")  # importing it gives `input` editing and a history
        while True:
            try:
                line = input(PROMPT if sys.stdin.isatty() else "").strip()
            except (EOFError, KeyboardInterrupt):
                if sys.stdin.isatty():
                    say("")
                return
            except UnicodeDecodeError:
                say("polyroute: that was not UTF-8")
                continue
            if line == "/quit":
                return
            if line.startswith("/"):
                self._command(line)
            elif line:
                self._turn(line)

    def _command(self, line: str) -> None:
        name, _, rest = line.partition(" ")
        rest = rest.strip()
        if name == "/system":
            self._asked = replace(self._asked, system=rest or None)
        elif name == "/model":
            self._asked = replace(self._asked, model=rest or None)
        elif name == "/clear":
            self._said.clear()
        elif name == "/help":
            say(HELP)
        else:
            say(f"polyroute: no command `{name}`; /help shows what there is")

    def _turn(self, line: str) -> None:
        question = {"role": "user", "content": line}
        heard: list[str] = []
        try:
            self._runner.run(self._answer([*self._asked.instructions(), *self._said, question], heard))
        except RequestFailed as error:
            say(f"polyroute: {describe(error)}")
            if error.reason == "PROMPT_TOO_LONG":
                say("/clear forgets what was said")
            return
        except KeyboardInterrupt:
            say("(stopped)")
        if heard:  # an answer that was stopped is remembered as far as the user has seen it
            self._said += [question, {"role": "assistant", "content": "".join(heard)}]

    async def _answer(self, messages: list[Mapping[str, str]], heard: list[str]) -> None:
        printer = Printer(sys.stdout)
        try:
            async with self.client.stream(messages, **self._asked.options()) as stream:
                async for delta in stream:
                    heard.append(delta.text)
                    printer.write(delta.text)
        finally:
            printer.end()
