"""Options that several commands share: the server to call, and how to sample."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from polyroute.client.address import DEFAULT_PORT, parse_address

if TYPE_CHECKING:
    from polyroute.client.admin import AdminClient
    from polyroute.client.channel import Tls
    from polyroute.client.client import Client
    from polyroute.client.request import Cache, GenerateOptions

F = TypeVar("F", bound=Callable[..., Any])

POSITIVE = click.FloatRange(min=0, min_open=True)


@dataclass(frozen=True, slots=True)
class Server:
    """The server that a command calls, as its options name it."""

    address: str
    tls: bool | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    server_name: str | None = None
    token: str | None = None
    timeout: float | None = None

    def client(self) -> Client:
        """A client of the server's main address."""
        from polyroute.client.client import Client

        with _usage():
            return Client(self.address, tls=self._tls(), token=self.token, timeout=self.timeout)

    def admin(self) -> AdminClient:
        """A client of the server's admin address."""
        from polyroute.client.admin import AdminClient

        with _usage():
            return AdminClient(self.address, tls=self._tls(), token=self.token, timeout=self.timeout)

    def _tls(self) -> Tls | bool | None:
        from polyroute.client.channel import Tls

        if self.ca_file or self.cert_file or self.key_file or self.server_name:
            if self.tls is False:
                raise ValueError("--no-tls goes with none of --ca-file, --cert-file, --key-file and --server-name")
            return Tls(self.ca_file, self.cert_file, self.key_file, self.server_name)
        return self.tls


def text(value: str) -> str:
    """An option's type: text that UTF-8 can hold, as bytes of another encoding on the command line are not."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise click.BadParameter("is not UTF-8") from None
    return value


def integer_type(bits: int) -> Callable[[str], int]:
    """An option's type: a whole number that fits so many bits of the wire; the server says which make sense."""

    def integer(value: str) -> int:
        try:
            number = int(value)
        except ValueError:
            raise click.BadParameter(f"`{value}` is not a whole number") from None
        if not -(2 ** (bits - 1)) <= number < 2 ** (bits - 1):
            raise click.BadParameter(f"{number} does not fit {bits} bits")
        return number

    return integer


def read_prompt(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """The prompt itself; `-` reads standard input to its end, less one final line end."""
    if value != "-":
        return value
    try:
        text = sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise click.BadParameter(f"standard input is not UTF-8: byte {error.start}", ctx, param) from None
    return text.removesuffix("\n").removesuffix("\r")


def server_options(command: F) -> F:
    """The options that name a server and how to reach it; the command gets them as `server`."""
    return _server(command, "--address", "-a", "POLYROUTE_GRPC_ADDRESS", DEFAULT_PORT)


def admin_options(command: F) -> F:
    """The same for a server's admin address."""
    return _server(command, "--admin-address", "-a", "POLYROUTE_ADMIN_ADDRESS", 50052)


def _server(command: F, flag: str, short: str, variable: str, port: int) -> F:
    path = click.Path(exists=True, dir_okay=False)
    return _gather(
        command,
        Server,
        "server",
        [
            click.option(
                flag,
                short,
                "address",
                envvar=variable,
                default=f"127.0.0.1:{port}",
                show_default=True,
                show_envvar=True,
                callback=_address(port),
                metavar="HOST:PORT",
                help="Server to call; https://host and unix:/path too.",
            ),
            click.option("--tls/--no-tls", "tls", default=None, help="Secure the connection; follows from https://."),
            click.option("--ca-file", type=path, help="PEM file of the authorities to trust, instead of the system's."),
            click.option("--cert-file", type=path, help="PEM file of the client's own certificate."),
            click.option("--key-file", type=path, help="PEM file of its private key."),
            click.option("--server-name", metavar="NAME", help="Name in the server's certificate."),
            click.option("--token", envvar="POLYROUTE_TOKEN", show_envvar=True, help="Bearer token to send."),
            click.option("--timeout", type=POSITIVE, metavar="SECONDS", help="Longest time that a call may take."),
        ],
    )


class _CacheMode(click.Choice[str]):
    """A mode of the cache, in either spelling: `only-if-cached` or `ONLY_IF_CACHED`."""

    def __init__(self) -> None:
        super().__init__(["bypass", "refresh", "only-if-cached"], case_sensitive=False)

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return super().convert(value.replace("_", "-"), param, ctx)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a command's options ask of the model, as they were given."""

    model: str | None
    system: str | None
    raw: bool
    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    seed: int | None
    stop: tuple[str, ...]
    user: str
    session: str
    variant: str
    cache: str | None
    cache_max_age: float | None
    original_pace: bool

    def options(self) -> GenerateOptions:
        """The keywords of `Client.generate`."""
        from polyroute.client.request import Routing

        return {
            "model": self.model,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "min_p": self.min_p,
            "seed": self.seed,
            "stop": self.stop or None,
            "cache": self._cache(),
            "routing": Routing(user=self.user, session=self.session, variant=self.variant),
        }

    def _cache(self) -> Cache | None:
        from polyroute.client.enums import CacheMode
        from polyroute.client.request import Cache

        if self.cache is None and self.cache_max_age is None and not self.original_pace:
            return None
        return Cache(self.cache or CacheMode.UNSPECIFIED, self.cache_max_age, self.original_pace)

    def prompt(self, text: str) -> str | list[Mapping[str, str]]:
        """`text` as it stands with `--raw`, otherwise as a user's message."""
        if self.raw:
            if self.system is not None:
                raise click.UsageError("--system goes with messages, and --raw sends none")
            return text
        return [*self.instructions(), {"role": "user", "content": text}]

    def instructions(self) -> list[Mapping[str, str]]:
        """The system message, if there is one."""
        return [] if self.system is None else [{"role": "system", "content": self.system}]


def generate_options(command: F) -> F:
    """The options that say what to ask of which model; the command gets them as `asked`."""
    return _gather(
        command,
        Asked,
        "asked",
        [
            click.option("--model", "-m", type=text, help="Model ID or route; the server's default if not given."),
            click.option("--system", type=text, metavar="TEXT", help="System message to begin the conversation with."),
            click.option("--raw", is_flag=True, help="Continue the prompt as it stands, without a chat template."),
            click.option("--max-tokens", type=integer_type(32), help="Most tokens to generate."),
            click.option("--temperature", type=float, help="Sampling temperature; 0 is greedy."),
            click.option("--top-p", type=float, help="Keep the likeliest tokens of this total probability."),
            click.option("--top-k", type=integer_type(32), help="Keep this many of the likeliest tokens."),
            click.option("--min-p", type=float, help="Keep tokens at least this likely, relative to the likeliest."),
            click.option("--seed", type=integer_type(64), help="Make sampling repeatable."),
            click.option("--stop", type=text, multiple=True, help="End the answer where this appears; repeatable."),
            click.option("--user", type=text, default="", help="User that the call is made for; keeps to one variant."),
            click.option("--session", type=text, default="", help="Session of the call; keeps to one variant."),
            click.option("--variant", type=text, default="", help="Variant of the route to use."),
            click.option("--cache", type=_CacheMode(), help="How to use the cache."),
            click.option(
                "--cache-max-age", type=POSITIVE, metavar="SECONDS", help="Oldest answer to take from the cache."
            ),
            click.option("--original-pace", is_flag=True, help="Replay a stored answer as slowly as it was generated."),
        ],
    )


def json_option(command: F) -> F:
    """`--json`, which the command gets as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def _gather(command: F, cls: type[Any], name: str, options: list[Callable[[Any], Any]]) -> F:
    """Puts `options` on `command`, which gets their values together as one `cls`, under `name`."""
    names = [field.name for field in fields(cls)]

    @wraps(command)
    def gathered(**given: Any) -> Any:
        own = {key: given.pop(key) for key in names}
        return command(**given, **{name: cls(**own)})

    wrapped: Any = gathered
    for option in reversed(options):
        wrapped = option(wrapped)
    return cast(F, wrapped)


def _address(port: int) -> Callable[[click.Context, click.Parameter, str], str]:
    def check(ctx: click.Context, param: click.Parameter, value: str) -> str:
        try:
            parse_address(value, port)
        except ValueError as error:
            raise click.BadParameter(str(error).removeprefix("address: "), ctx, param) from None
        return value

    return check


@contextmanager
def _usage() -> Iterator[None]:
    """Arguments that make no sense, and files that cannot be read, are wrong usage."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise click.UsageError(str(error)) from error
