"""`polyroute generate`: one prompt, one answer."""

from __future__ import annotations

import sys
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
from polyroute.client.cli.printing import Printer, print_json, say
from polyroute.client.cli.running import run

if TYPE_CHECKING:
    from polyroute.client.answers import Answer


@click.command()
@click.argument("prompt", type=text, callback=read_prompt)
@generate_options
@click.option("--stream/--no-stream", default=True, help="Print the answer as it comes (default), or once it is whole.")
@click.option("--verbose", "-v", is_flag=True, help="Say on standard error how the answer was routed.")
@json_option
@server_options
def generate(prompt: str, asked: Asked, stream: bool, verbose: bool, as_json: bool, server: Server) -> None:
    """Answer PROMPT, or what standard input holds if PROMPT is `-`, on standard output.

    The prompt is sent as a user's message; with --raw it is continued as it stands.
    """
    answer = run(_answer(prompt, asked, server, stream=stream and not as_json, quiet=as_json))
    if as_json:
        print_json(answer)
    if verbose:
        say(f"{answer.route}\n{summary(answer)}")


async def _answer(prompt: str, asked: Asked, server: Server, *, stream: bool, quiet: bool) -> Answer:
    given = asked.prompt(prompt)
    async with server.client() as client:
        if quiet:
            return await client.generate(given, **asked.options())
        printer = Printer(sys.stdout)
        try:
            if not stream:
                answer = await client.generate(given, **asked.options())
                printer.write(answer.text)
                return answer
            async with client.stream(given, **asked.options()) as answering:
                async for delta in answering:
                    printer.write(delta.text)
                return answering.answer
        finally:
            printer.end()


def summary(answer: Answer) -> str:
    """How long the answer is, why it ended, what it took, and how to speak of it, in one line."""
    usage, timing = answer.usage, answer.timing
    parts = [f"{usage.prompt_tokens} + {usage.completion_tokens} tokens", f"ended by {answer.finish_reason}"]
    if timing.first_token_s is not None:
        parts.append(f"first token {timing.first_token_s:.3f} s")
    if timing.total_s is not None:
        parts.append(f"total {timing.total_s:.3f} s")
    if answer.request_id:
        parts.append(f"request {answer.request_id}")
    return ", ".join(parts)
