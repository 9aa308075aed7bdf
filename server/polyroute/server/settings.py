"""What the server runs with: flags win over environment, environment over file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import platformdirs
from pydantic import ByteSize, SecretStr, TypeAdapter, ValidationError

from polyroute.core.config import Config
from polyroute.core.config_file import format_path
from polyroute.routing.experiments.database import checked_url, default_url
from polyroute.server.config_source import ConfigSource
from polyroute.server.logs import FORMATS, LEVELS

DEFAULT_MODEL: Final = "meta-llama/Llama-3.1-8B-Instruct"
DEFAULT_DRAIN_S: Final = 30.0
MOST_WORKERS: Final = 256
"""Most router processes of one server."""


class SettingsError(Exception):
    """A flag or a variable cannot be used; the message names it."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen. `port` 0 is any free one; `source` is the flag or variable that a message should name."""

    host: str
    port: int
    source: str = ""

    @classmethod
    def parse(cls, text: str, source: str) -> Address:
        """Reads `host:port`, with brackets around an IPv6 address."""
        host, colon, port = text.rpartition(":")
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        if not colon or not bare or not port.isdecimal() or int(port) > 65535 or (":" in bare and bare == host):
            raise SettingsError(f"{source}: `{text}` is no address of the form host:port, such as 127.0.0.1:50051")
        return cls(bare, int(port), source)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that the composition root needs to know. Sizes are in bytes, times in seconds.

    `cache_bytes` is the size of the cache on disk, None where the configuration says it, or nothing does.
    `state_url` names the database of experiments and rollouts; None keeps nothing of them. `redis_url` says where the
    cache's tier is that machines share; None is nowhere. `source` is the file that the configuration was read from,
    None in single-model mode; with `watch` the server looks for changes there by itself. `log_format` and `log_level`
    are as of `polyroute.server.logs.set_up`. `workers` is how many router processes share the ports.
    """

    config: Config
    grpc: Address
    http: Address
    admin: Address
    cache_dir: Path
    cache_bytes: int | None
    drain_s: float = DEFAULT_DRAIN_S
    redis_url: SecretStr | None = None
    source: ConfigSource | None = None
    watch: bool = True
    log_format: str = "auto"
    log_level: str = "info"
    state_url: str | None = None
    workers: int = 1


@dataclass(frozen=True, slots=True)
class Flags:
    """The flags of `polyroute serve`, None where one is not given."""

    config: Path | None = None
    demo: bool = False
    grpc_address: str | None = None
    http_address: str | None = None
    admin_address: str | None = None
    drain_timeout: float | None = None
    watch: bool | None = None
    log_format: str | None = None
    log_level: str | None = None
    workers: int | None = None


def settings(flags: Flags, environ: Mapping[str, str]) -> Settings:
    """The settings in force; raises `SettingsError`, or `ConfigError` for the file."""
    given = set_variables(environ)
    config, source = _config(flags, given)
    return Settings(
        config=config,
        grpc=_address(flags.grpc_address, "--grpc-address", given, "POLYROUTE_GRPC_ADDRESS", "127.0.0.1:50051"),
        http=_address(flags.http_address, "--http-address", given, "POLYROUTE_HTTP_ADDRESS", "127.0.0.1:8080"),
        admin=_address(flags.admin_address, "--admin-address", given, "POLYROUTE_ADMIN_ADDRESS", "127.0.0.1:50052"),
        cache_dir=Path(given.get("POLYROUTE_CACHE_DIR") or platformdirs.user_cache_dir("polyroute")).expanduser(),
        cache_bytes=_size("POLYROUTE_CACHE_SIZE", given.get("POLYROUTE_CACHE_SIZE")),
        drain_s=DEFAULT_DRAIN_S if flags.drain_timeout is None else flags.drain_timeout,
        redis_url=_redis_url(given.get("POLYROUTE_REDIS_URL")),
        source=source,
        watch=_watch(flags, given),
        log_format=flags.log_format or _one_of(FORMATS, given, "POLYROUTE_LOG_FORMAT", "auto"),
        log_level=flags.log_level or _one_of(LEVELS, given, "POLYROUTE_LOG_LEVEL", "info"),
        state_url=_state_url(given),
        workers=_workers(flags, given),
    )


def set_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of the environment that are not empty: those count as not set."""
    return {name: value for name, value in environ.items() if value != ""}


def _state_url(environ: Mapping[str, str]) -> str:
    if "POLYROUTE_STATE_URL" not in environ:
        return default_url(Path(platformdirs.user_state_dir("polyroute")))
    try:
        return checked_url(environ["POLYROUTE_STATE_URL"])
    except ValueError as error:
        raise SettingsError(f"POLYROUTE_STATE_URL: {error}") from None


def _one_of(words: Sequence[str], environ: Mapping[str, str], variable: str, default: str) -> str:
    word = environ.get(variable, default)
    if word not in words:
        raise SettingsError(f"{variable}: `{word}`; write one of {', '.join(words)}")
    return word


def _workers(flags: Flags, environ: Mapping[str, str]) -> int:
    if flags.workers is not None:
        return flags.workers
    text = environ.get("POLYROUTE_WORKERS", "1")
    if not text.isdecimal() or not 1 <= int(text) <= MOST_WORKERS:
        raise SettingsError(f"POLYROUTE_WORKERS: `{text}`; write a number from 1 to {MOST_WORKERS}")
    return int(text)


def _watch(flags: Flags, environ: Mapping[str, str]) -> bool:
    if flags.watch is not None:
        return flags.watch
    text = environ.get("POLYROUTE_WATCH", "on")
    if text not in ("on", "off"):
        raise SettingsError(f"POLYROUTE_WATCH: `{text}`; write on or off")
    return text == "on"


def _config(flags: Flags, environ: Mapping[str, str]) -> tuple[Config, ConfigSource | None]:
    if flags.demo and flags.config is not None:
        raise SettingsError("--demo and --config: give one of them")
    if flags.demo:
        return single_model("demo", environ), None
    path = flags.config or (Path(environ["POLYROUTE_CONFIG"]) if "POLYROUTE_CONFIG" in environ else None)
    if path is not None:
        source = ConfigSource(path)
        return source.read(environ), source
    return single_model(environ.get("MODEL_ID", DEFAULT_MODEL), environ), None


def single_model(model_id: str, environ: Mapping[str, str]) -> Config:
    """The configuration of one local model; raises `SettingsError`."""
    variables = {"id": "MODEL_ID", "device": "MODEL_DEVICE", "dtype": "MODEL_DTYPE"}
    model: dict[str, Any] = {"id": model_id, "type": "local"}
    model |= {key: environ[name] for key, name in variables.items() if key != "id" and name in environ}
    try:
        return Config.model_validate({"models": [model]})
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][-1])
        name = variables.get(key, format_path(tuple(first["loc"])))
        raise SettingsError(f"{name}: `{first.get('input')}`: {first['msg'].removeprefix('Value error, ')}") from None


def _address(flag: str | None, flag_name: str, environ: Mapping[str, str], variable: str, default: str) -> Address:
    if flag is not None:
        return Address.parse(flag, flag_name)
    if variable in environ:
        return Address.parse(environ[variable], variable)
    return Address.parse(default, flag_name)


def _redis_url(text: str | None) -> SecretStr | None:
    """Where Redis is; the message of an error shows nothing of the URL, which may have a password in it."""
    if text is None:
        return None
    form = "redis://host:port/0, rediss://host:port/0 or unix:///path"
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("redis", "rediss") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable and not (text.startswith("unix://") and len(text) > len("unix://")):
        raise SettingsError(f"POLYROUTE_REDIS_URL: is no URL of the form {form}")
    if find_spec("redis") is None:
        raise SettingsError("POLYROUTE_REDIS_URL: needs Polyroute's extra `redis`: pip install 'polyroute[redis]'")
    return SecretStr(text)


def _size(name: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        size = int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError:
        raise SettingsError(f"{name}: `{text}` is no size; write one such as 500MiB or 1GiB") from None
    if size < 1024 * 1024:
        raise SettingsError(f"{name}: {size} bytes, at least 1MiB")
    return size
