"""What may be said of a model: options of local ones, of remote ones, and of both."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, TypeAlias

from pydantic import BeforeValidator, ByteSize, Field, SecretStr, field_validator, model_validator

from polyroute.core.config.cache import TIERS, CacheConfig
from polyroute.core.config.values import Name, OrOff, Seconds, Section, check_authority, parse_duration


class WarmConfig(Section):
    """How many replicas of a local model are kept loaded, how many there may be, and when one that is idle leaves.

    `min` is 1 for the default model and 0 for others where it is None; `max` is as few as `min` allows, at least 1.
    """

    min: int | None = Field(default=None, ge=0, le=64)
    max: int | None = Field(default=None, ge=1, le=64)
    idle_unload: Seconds = 900.0

    @model_validator(mode="after")
    def _a_range(self) -> Self:
        if self.max is not None and self.min is not None and self.min > self.max:
            raise ValueError(f"`min` is {self.min}, more than `max`, which is {self.max}")
        return self


class ConcurrencyConfig(Section):
    """Bounds within which a peer's `max_concurrency` follows what it can bear.

    The word `auto` stands for the defaults, and a number for both bounds: a limit that does not move.
    """

    min: int = Field(default=1, ge=1)
    max: int = Field(default=512, ge=1)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min is {self.min}, more than max, which is {self.max}")
        return self


class TlsConfig(Section):
    """How a peer's certificate is checked."""

    ca_file: Path | None = None
    verify: bool = True


class SecretFile(Section):
    """A secret that stands alone in a file."""

    file: Path


class BreakerConfig(Section):
    """When a replica gets no more calls, and how it is tried again. Times are in seconds.

    It opens after `failures` in a row, or where among at least `min_calls` calls of the last `window` a share of
    `ratio` failed. It stays open for `open`, twice as long each time that the replica falls ill again, up to
    `max_open`; then `probes` calls at a time try whether it is well.
    """

    failures: int = Field(default=5, ge=1)
    ratio: float = Field(default=0.5, gt=0, le=1)
    min_calls: int = Field(default=20, ge=1)
    window: Seconds = 30.0
    open: Seconds = 1.0
    max_open: Seconds = 30.0
    probes: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _times(self) -> Self:
        if self.max_open < self.open:
            raise ValueError(f"max_open ({self.max_open:g} s) is less than open ({self.open:g} s)")
        return self


class RetryBudgetConfig(Section):
    """Most retries and hedges: `share` of the calls, and `min_per_second` besides."""

    share: float = Field(default=0.2, ge=0, le=1)
    min_per_second: float = Field(default=10.0, ge=0, allow_inf_nan=False)


def _hedge_after(value: Any) -> Any:
    """Seconds, or a percentile such as `p95` of the times to the first token."""
    if isinstance(value, str) and (percentile := re.fullmatch(r"p([1-9]\d?)", value)):
        return f"p{percentile[1]}"
    seconds = parse_duration(value)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < float("inf"):
        raise ValueError(f"`{value}` is neither a time such as 300ms nor a percentile from p1 to p99")
    return float(seconds)


class HedgeConfig(Section):
    """After how long a second replica is asked as well: seconds, or a percentile of the times to the first token."""

    after: Annotated[float | str, BeforeValidator(_hedge_after)]


class DeploymentConfig(Section):
    """What local and remote models have in common. Times are in seconds."""

    id: Name
    version: str | None = Field(default=None, min_length=1, max_length=256)
    max_queue: int = Field(default=64, ge=0)
    queue_timeout: Seconds = 30.0
    timeout: Seconds | None = None
    first_token_timeout: Seconds = 60.0
    balance: Literal["least_outstanding", "round_robin", "prefix"] = "least_outstanding"
    retries: int = Field(default=2, ge=0, le=10)
    retry_budget: RetryBudgetConfig = RetryBudgetConfig()
    breaker: Annotated[BreakerConfig | None, OrOff] = BreakerConfig()
    slow_start: Annotated[Seconds | None, OrOff] = 10.0
    hedge: Annotated[HedgeConfig | None, OrOff] = None
    cache: CacheConfig | None = None

    @field_validator("cache")
    @classmethod
    def _sizes_are_the_files(cls, cache: CacheConfig | None) -> CacheConfig | None:
        for tier in TIERS:
            if cache is not None and cache.size(tier) is not None:
                raise ValueError(f"`tiers.{tier}.size` belongs to the file's own `cache`: all models share the tier")
        return cache


def _follows_its_engine(value: Any) -> Any:
    if value == "auto" or isinstance(value, dict):
        raise ValueError("only a remote model's adapts; a local one follows what its engine runs at once")
    return value


class LocalConfig(DeploymentConfig):
    """A model that this server runs itself. What bounds its engine is chosen for the device where it is None."""

    type: Literal["local"]
    source: str | None = Field(default=None, min_length=1)
    revision: str | None = Field(default=None, min_length=1)
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")] = "auto"
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    trust_remote_code: bool = False
    quantization: Literal["int8", "int4"] | None = None
    cuda_graphs: bool = True
    max_concurrency: Annotated[int | None, BeforeValidator(_follows_its_engine)] = Field(default=None, ge=1)
    max_sequences: int | None = Field(default=None, ge=1, le=1024)
    max_batch_tokens: int | None = Field(default=None, ge=16)
    kv_cache_memory: ByteSize | None = Field(default=None, ge=16 * 1024 * 1024)
    warm: WarmConfig = WarmConfig()

    @property
    def effective_source(self) -> str:
        """Hub ID, folder, `.gguf` file, or `demo`."""
        return self.source or self.id


_CREDENTIALS: Final = re.compile(r"[^/]*//[^/]*@|[^?#]*\?")
"""What begins a URL that has something before its host, or after its path: it may be secret."""


def _bounds(value: Any) -> Any:
    if value is None or isinstance(value, (dict, ConcurrencyConfig)):
        return value
    if value == "auto":
        return {}
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"`{value}` is none of: a number from 1, auto, {{min: N, max: N}}")
    return {"min": value, "max": value}


class RemoteConfig(DeploymentConfig):
    """A model that a peer runs."""

    type: Literal["remote"]
    base_urls: tuple[str, ...] = Field(min_length=1)
    max_concurrency: Annotated[ConcurrencyConfig | None, BeforeValidator(_bounds)] = None
    api: Literal["auto", "openai", "generate"] = "auto"
    peer_model: str | None = Field(default=None, min_length=1)
    api_key: SecretStr | SecretFile | None = None
    headers: dict[str, SecretStr] = Field(default={})
    tls: TlsConfig = TlsConfig()
    connect_timeout: Seconds = 5.0
    probe_interval: Seconds = 15.0
    resolve_interval: Seconds = 30.0

    @model_validator(mode="before")
    @classmethod
    def _one_url_or_many(cls, data: Any) -> Any:
        if isinstance(data, dict) and "base_url" in data:
            if "base_urls" in data:
                raise ValueError("give `base_url` or `base_urls`, not both")
            data = {**data, "base_urls": [data["base_url"]]}
            del data["base_url"]
        return data

    @field_validator("base_urls")
    @classmethod
    def _urls(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            if _CREDENTIALS.match(url):  # and is not quoted: logs and the console tell of it
                raise ValueError("has a user, a password or a `?` in it; keys are sent by `api_key` and `headers`")
            if not re.fullmatch(r"(dns\+)?https?://[^\s/?#@]+(/[^\s?#]*)?", url):
                raise ValueError(f"`{url}` is no URL of the form http://host:port or dns+http://name:port")
            check_authority(url)
        if len(set(urls)) != len(urls):
            raise ValueError("a URL is listed twice")
        return tuple(url.rstrip("/") for url in urls)


ModelConfig: TypeAlias = Annotated[LocalConfig | RemoteConfig, Field(discriminator="type")]

LIVE: Final = frozenset(
    {
        *("max_concurrency", "max_queue", "queue_timeout", "timeout", "first_token_timeout", "cache"),
        *("version", "warm", "balance", "connect_timeout", "probe_interval", "resolve_interval"),
        *("retries", "retry_budget", "breaker", "slow_start", "hedge"),
    }
)
"""Options of a model that a deployment takes on while it runs. Where any other one changes, those of a later version
too, the backend is built anew."""


def changed_options(old: ModelConfig, new: ModelConfig) -> frozenset[str]:
    """Names of the options in which two configurations of a model differ."""
    names = type(old).model_fields.keys() | type(new).model_fields.keys()
    return frozenset(name for name in names if getattr(old, name, None) != getattr(new, name, None))
