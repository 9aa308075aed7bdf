"""The commands that need the server: `polyroute serve` and `polyroute check`."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from tempfile import TemporaryFile
from threading import Thread
from typing import TYPE_CHECKING, Any, Final

import click
import structlog

from polyroute.core.config_file import ConfigError, read_config
from polyroute.core.errors import PolyrouteError, StateUnavailable
from polyroute.server import huge_pages, logs
from polyroute.server.settings import MOST_WORKERS, Flags, Settings, SettingsError, settings

if TYPE_CHECKING:
    from polyroute.server.app import Server
    from polyroute.server.fronts.home import Home

_POLL_S = 0.1
_YOUNG: Final = 20_000
"""Objects that are made before the collector looks at the youngest; Python's own number is 700."""

log = structlog.get_logger(__name__)


def _address_option(name: str, what: str, default: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    shown = f"{what} [env: POLYROUTE_{name.upper()}_ADDRESS; default: {default}]"
    return click.option(f"--{name}-address", metavar="H:P", help=shown)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", type=click.Path(path_type=Path), help="A models.yaml: many models. [env: POLYROUTE_CONFIG]")
@click.option("--demo", is_flag=True, help="Serve the packaged demo model.")
@_address_option("grpc", "gRPC.", "127.0.0.1:50051")
@_address_option("http", "REST, console and metrics.", "127.0.0.1:8080")
@_address_option("admin", "The operator's calls.", "127.0.0.1:50052")
@click.option(
    "--drain-timeout",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="How long calls in flight may take to finish on SIGTERM. [default: 30]",
)
@click.option(
    "--watch/--no-watch",
    default=None,
    help="Read the file of --config again when it changes. [env: POLYROUTE_WATCH=on|off; default: on]",
)
@click.option(
    "--workers",
    type=click.IntRange(1, MOST_WORKERS),
    metavar="COUNT",
    help="Router processes that share the ports. [env: POLYROUTE_WORKERS; default: 1]",
)
@click.option(
    "--log-format",
    type=click.Choice(logs.FORMATS),
    help="auto is text in a terminal, JSON elsewhere. [env: POLYROUTE_LOG_FORMAT; default: auto]",
)
@click.option(
    "--log-level",
    type=click.Choice(logs.LEVELS),
    help="The least to be logged. [env: POLYROUTE_LOG_LEVEL; default: info]",
)
def serve(**given: Any) -> None:
    """Run the server until SIGTERM or Ctrl-C; SIGHUP has it read the file of --config again.

    Without --config it serves the one model of MODEL_ID (a hub ID, a folder or a .gguf file).
    """
    try:
        chosen = settings(Flags(**given), os.environ)
    except SettingsError as error:
        raise click.UsageError(str(error)) from None
    except ConfigError as error:
        click.echo("\n".join(map(str, error.problems)), err=True)
        sys.exit(2)
    with TemporaryFile() as turns:
        shared = turns.fileno() if chosen.workers > 1 else None
        writer = logs.set_up(format=chosen.log_format, level=chosen.log_level, turns=shared)
        try:
            sys.exit(run(_serve(chosen, shared)))
        finally:
            writer.close()


def run(serving: Coroutine[Any, Any, int]) -> int:
    """Runs a process of the server on the fastest event loop that there is; returns its exit code."""
    try:
        import uvloop
    except ImportError:  # an option: not on every platform
        return asyncio.run(serving)
    code: int = uvloop.run(serving)
    return code


async def _serve(chosen: Settings, turns: int | None) -> int:
    # gRPC, imported below, would warn of the fork by which each worker process begins; that one only calls exec.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    from polyroute.server.app import BindError, Server
    from polyroute.server.fronts.home import Home

    gc.disable()  # until `unburden`: nearly all that a start makes is there to stay
    begun = time.monotonic()
    stop, hurry = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def asked_to_stop() -> None:
        (hurry if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked_to_stop)
    reloads: set[asyncio.Task[None]] = set()

    def asked_to_reload() -> None:
        task = asyncio.create_task(_reload(server))
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    loop.add_signal_handler(signal.SIGHUP, asked_to_reload)  # by default it would end the process, calls and all
    server = Server(chosen, environ=os.environ) if turns is None else Home(chosen, turns, environ=os.environ)
    try:
        started = await _started(server, stop)
    except (BindError, StateUnavailable) as error:
        click.echo(f"polyroute: {error}", err=True)
        await server.stop()
        return 1
    if not started:
        await server.stop()
        return 0
    unburden()
    announcing = asyncio.create_task(_announce(server, begun))
    await stop.wait()
    announcing.cancel()
    click.echo("polyroute: stopping; calls in flight may finish (once more to stop at once)", err=True)
    draining = asyncio.create_task(server.drain(chosen.drain_s))
    hurried = asyncio.create_task(hurry.wait())
    await asyncio.wait({draining, hurried}, return_when=asyncio.FIRST_COMPLETED)
    draining.cancel()
    hurried.cancel()
    await asyncio.gather(draining, hurried, announcing, return_exceptions=True)
    await server.stop()
    return 0


async def _started(server: Server | Home, stop: asyncio.Event) -> bool:
    """Starts it; says whether it could, before it was to stop. Raises what `start` raises."""
    starting, stopping = asyncio.create_task(server.start()), asyncio.create_task(stop.wait())
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not starting.done():  # processes that never come to listen must not keep it from ending
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        return False
    await starting
    return True


async def _reload(server: Server | Home) -> None:
    try:
        await server.reload.reload("SIGHUP")
    except PolyrouteError as error:
        log.warning("config.not_reloaded", reason=error.message)
    except Exception:  # noqa: BLE001, S110 - our bug, which the reload has logged
        pass


def unburden() -> None:
    """Spares calls what interpreter and system do beside them too often, or in vain: a fifth of a call's time."""
    # What is there now stays: to go through it all at each full collection would hold up calls, with 10,000 models by
    # more than half a second.
    gc.freeze()
    # A call makes some hundred objects that the collector looks at, and nearly all are gone with it.
    # What is left in rings, by errors as a rule, holds whole requests: so the older ones are not left for long either.
    gc.set_threshold(_YOUNG, 10, 10)
    gc.enable()
    # The loop keeps a list of all generators, to close those that nobody has closed when it ends. We close ours.
    sys.set_asyncgen_hooks(firstiter=None)
    # Each call goes through a good part of what a start leaves in memory, in pages all over it.
    Thread(target=huge_pages.gather, name="huge pages", daemon=True).start()  # calls come already


async def _announce(server: Server | Home, begun: float) -> None:
    """Prints one line once the default model answers; how its load goes is in the log."""
    while not server.ready():  # noqa: ASYNC110 - readiness has many sources, and no event of its own
        await asyncio.sleep(_POLL_S)
    click.echo(_ready(server, time.monotonic() - begun))


def _ready(server: Server | Home, took_s: float) -> str:
    model = server.gateway.default_model
    grpc, http = server.grpc_address, server.http_address
    question = "What is the capital of France?"
    message = json.dumps({"messages": {"messages": [{"role": "user", "content": question}]}})
    chat = json.dumps({"model": model, "messages": [{"role": "user", "content": question}]})
    at = "" if str(grpc) == "127.0.0.1:50051" else f" --address {grpc}"
    return "\n".join(
        [
            f"polyroute ready: gRPC {grpc}, REST and console http://{http}, model {model} ({took_s:.1f} s)",
            "try:",
            f"  grpcurl -plaintext -d '{message}' {grpc} polyroute.v1.InferenceService/Generate",
            f"  curl -s http://{http}/v1/chat/completions -H 'Content-Type: application/json' -d '{chat}'",
            f'  polyroute generate{at} "{question}"',
        ]
    )


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def check(file: Path, as_json: bool) -> None:
    """Check a models.yaml as the server would read it: exit 0, or 2 with each problem on a line."""
    try:
        config = read_config(file, os.environ)
    except ConfigError as error:
        if as_json:
            listed = [{"file": p.file, "line": p.line, "path": p.path, "message": p.message} for p in error.problems]
            click.echo(json.dumps({"ok": False, "problems": listed}))
        else:
            click.echo("\n".join(map(str, error.problems)))
        sys.exit(2)
    if as_json:
        click.echo(json.dumps({"ok": True, "models": len(config.models), "routes": len(config.routes)}))
    else:
        click.echo(f"ok: {_counted(len(config.models), 'model')}, {_counted(len(config.routes), 'route')}")


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
