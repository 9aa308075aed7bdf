"""The configuration: what `models.yaml` may say. Reading the file, with its line numbers, is `core.config_file`."""

from __future__ import annotations

import hashlib
import re
from datetime import timedelta
from ipaddress import IPv6Address
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, TypeAlias
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_LONGEST_HOST = 253  # RFC 1035, section 2.3.4, as text
_NAME = re.compile(r"[^\s\x00-\x1f\x7f]+")

HEADER_KEY: Final = "header:"
"""How a sticky key begins that is the value of a header (HTTP) or of metadata (gRPC); its name follows."""

_ROUTING_KEYS = ("user", "session", "affinity_key", "request")
_HEADER_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")  # what may name both


def parse_duration(value: Any) -> Any:
    """Seconds of `15m`, `30s`, `1h30m` or a bare number of seconds."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, str):
        return value
    parts = _DURATION.findall(value)
    if not parts or "".join(n + u for n, u in parts) != value.strip():
        raise ValueError(f"`{value}` is no duration; write one such as 500ms, 30s, 15m or 1h30m")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def _check_name(value: str) -> str:
    if not _NAME.fullmatch(value) or len(value) > 256:
        raise ValueError("a name has 1 to 256 characters, none of them spaces or control characters")
    return value


def _check_authority(url: str) -> None:
    """That a URL's host and port are such as can be looked up and connected to."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise ValueError(f"`{url}`: {error}") from None
    if port == 0:
        raise ValueError(f"`{url}`: no peer listens on port 0")
    if "[" in parts.netloc:
        try:
            IPv6Address(host)
        except ValueError as error:
            raise ValueError(f"`{url}`: {error}") from None
        return
    try:
        name = host.encode("idna").removesuffix(b".")  # as the resolver does
    except UnicodeError:
        name = b""
    if not 0 < len(name) <= _LONGEST_HOST:
        longest = f"{_LONGEST_HOST} characters, and 1 to 63 between dots"
        raise ValueError(f"`{url}`: `{host}` can be no host's name: that has 1 to {longest}")


def _check_sticky_key(value: str) -> str:
    if value in _ROUTING_KEYS:
        return value
    kind, colon, name = value.partition(":")
    header = name.lower()
    if kind + colon != HEADER_KEY:
        raise ValueError(f"`{value}` is none of {', '.join(_ROUTING_KEYS)} and header:NAME")
    if not _HEADER_NAME.fullmatch(header):
        raise ValueError(f"`{name}` names no header; 1 to 64 letters, digits, dashes, dots and underscores do")
    if header.startswith("grpc-") or header.endswith("-bin"):
        raise ValueError(f"`{name}` is a header of gRPC's own, or binary")
    return HEADER_KEY + header


Seconds: TypeAlias = Annotated[float, BeforeValidator(parse_duration), Field(gt=0, allow_inf_nan=False)]
Name: TypeAlias = Annotated[str, BeforeValidator(lambda v: _check_name(v) if isinstance(v, str) else v)]
StickyKey: TypeAlias = Annotated[str, AfterValidator(_check_sticky_key)]


class Section(BaseModel):
    """A mapping of the file: frozen, and every unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


TIERS: Final = ("memory", "disk", "redis")
"""Where answers may be kept, nearest first."""


class TierConfig(Section):
    """How long an answer stays in a tier (`ttl` in seconds; None is as long as it may be kept at all), and how large
    the tier is (`size` in bytes; None is the default)."""

    ttl: Seconds | None = None
    size: ByteSize | None = Field(default=None, ge=1024 * 1024)


def _mode(value: Any) -> Any:
    return "off" if value is False else value  # YAML 1.1 reads a bare `off` as false


def _tiers(value: Any) -> Any:
    """A list of names, or a mapping in which a name may stand alone, as a mapping."""
    if value is None:
        raise ValueError(f"is empty; name some of {', '.join(TIERS)}")
    if not isinstance(value, list | tuple | dict):
        raise ValueError(f"`{value}` is no list of tiers, such as [memory, disk]")
    if not value:
        raise ValueError("names no tier; write `mode: off` to keep nothing")
    for name in value:
        if name not in TIERS:
            raise ValueError(f"`{name}` is no tier; there are {', '.join(TIERS)}")
    if not isinstance(value, dict):
        if len(set(value)) != len(value):
            raise ValueError("a tier is named twice")
        return {name: {} for name in value}
    return {name: {} if options is None else options for name, options in value.items()}


class SemanticConfig(Section):
    """Whether an answer may stand for a request that is worded in another way: experimental, and off by default.

    `measure` answers fresh and counts what `serve` would have done. `threshold` is the least cosine similarity of two
    requests, `embedder` the model that makes their vectors: a folder, a hub ID, or `minilm` for the packaged one.
    `max_entries` is how many requests are known; a search goes through all of them, in a millisecond at the largest.
    """

    mode: Literal["off", "measure", "serve"] = "off"
    threshold: float = Field(default=0.95, ge=0.5, le=1)
    embedder: str = Field(default="minilm", min_length=1)
    max_entries: int = Field(default=2000, ge=1, le=10_000)

    _bare_off = field_validator("mode", mode="before")(_mode)


def _coalescing(value: Any) -> Any:
    if not isinstance(value, bool) and value != "fleet":
        raise ValueError(f"`{value}` is none of true, false and fleet")
    return value


class CacheConfig(Section):
    """When answers are kept, where (`tiers`; None is wherever there is room), and for how long (`ttl` in seconds; None
    is until they are evicted).

    Equal calls in flight share one run where `coalesce` is true, and with `fleet` those on all machines that share a
    Redis do. Once its `ttl` is over, an answer may be given for `stale_while_revalidate` seconds more while it is
    renewed, and for `stale_if_error` seconds where the model fails.
    """

    mode: Literal["deterministic", "opt_in", "always", "off"] = "deterministic"
    ttl: Seconds | None = None
    coalesce: Annotated[bool | Literal["fleet"], BeforeValidator(_coalescing)] = True
    stale_while_revalidate: Seconds | None = None
    stale_if_error: Seconds | None = None
    tiers: Annotated[dict[Literal["memory", "disk", "redis"], TierConfig] | None, BeforeValidator(_tiers)] = None

    semantic: SemanticConfig = SemanticConfig()

    _bare_off = field_validator("mode", mode="before")(_mode)

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        if self.tiers and "redis" in self.tiers and self.tiers["redis"].size is not None:
            raise ValueError("`tiers.redis.size`: Redis bounds itself; set its `maxmemory`")
        return self

    @property
    def stale_s(self) -> float:
        """How long an answer may be of use after its `ttl`, in seconds."""
        return max(self.stale_while_revalidate or 0.0, self.stale_if_error or 0.0)

    def size(self, tier: str) -> int | None:
        """Size of a tier in bytes, where one is said."""
        named = {} if self.tiers is None else self.tiers
        return next((int(t.size) for name, t in named.items() if name == tier and t.size is not None), None)


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


def _word_off(value: Any) -> Any:
    """None for `off`, which YAML 1.1 reads as false where it is bare; nothing at all is a mistake."""
    if value is None:
        raise ValueError("is empty; write `off`, or what it should be")
    return None if value is False or value == "off" else value


OrOff = BeforeValidator(_word_off)


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
    headers: dict[str, SecretStr] = {}
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
            if not re.fullmatch(r"(dns\+)?https?://[^\s/?#@]+(/[^\s?#]*)?", url):
                raise ValueError(f"`{url}` is no URL of the form http://host:port or dns+http://name:port")
            _check_authority(url)
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


class VariantConfig(Section):
    """One arm of a route; weights are relative to each other."""

    name: Name
    model: Name
    weight: float = Field(default=1.0, ge=0, allow_inf_nan=False)


def _share(value: Any) -> Any:
    """A part of 1, given as such or in percent: `5%` is 0.05."""
    if isinstance(value, str) and (percent := re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", value)):
        return float(percent[1]) / 100
    return value


FEEDBACK_METRIC: Final = r"^[A-Za-z0-9_.-]{1,64}$"
"""What callers may name their feedback."""

Share: TypeAlias = Annotated[float, BeforeValidator(_share), Field(allow_inf_nan=False)]


class RolloutStepConfig(Section):
    """One step of a rollout: the new version's share of the traffic, how long it stays there at least, in seconds, and
    how many answers of the new version it takes at least."""

    weight: Annotated[Share, Field(gt=0, lt=1)]
    hold: Seconds = 600.0
    min_samples: int = Field(default=50, ge=1)


class GuardrailConfig(Section):
    """How much worse the new version may be: it turns back once it is shown to be worse by more than `tolerance`, and
    goes on once it is shown to be worse by less than `margin`. What lies between is undecided."""

    tolerance: Annotated[Share, Field(ge=0)] = 0.0
    margin: Annotated[Share, Field(gt=0)] = 0.05

    @model_validator(mode="after")
    def _room(self) -> Self:
        if self.margin <= self.tolerance:
            raise ValueError(f"`margin` is {self.margin:g}, no more than `tolerance`, which is {self.tolerance:g}")
        return self


class ErrorsGuardrailConfig(GuardrailConfig):
    """The same in parts of the calls: a `margin` of 0.05 is five calls in a hundred more that fail."""

    margin: Annotated[Share, Field(gt=0, lt=1)] = 0.05


class TimeGuardrailConfig(GuardrailConfig):
    """The same in parts of the old version's time: a `tolerance` of 0.25 is a quarter slower, in the median."""

    tolerance: Annotated[Share, Field(ge=0)] = 0.25
    margin: Annotated[Share, Field(gt=0)] = 1.0


class QualityGuardrailConfig(GuardrailConfig):
    """The same in parts of pairs of answers that callers rated: a `margin` of 0.1 is one pair in ten more in which the
    new version's answer has the lower rating."""

    margin: Annotated[Share, Field(gt=0, lt=1)] = 0.1


class GuardrailsConfig(Section):
    """What a rollout watches: the share of calls that fail, the time to the first token, and to the last; and what
    callers say of answers, by the metric of their feedback, of which more is better."""

    errors: Annotated[ErrorsGuardrailConfig | None, OrOff] = ErrorsGuardrailConfig()
    first_token: Annotated[TimeGuardrailConfig | None, OrOff] = TimeGuardrailConfig()
    duration: Annotated[TimeGuardrailConfig | None, OrOff] = TimeGuardrailConfig()
    quality: dict[Annotated[str, Field(pattern=FEEDBACK_METRIC)], QualityGuardrailConfig] = Field(
        default={}, max_length=8
    )

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.errors is None and self.first_token is None and self.duration is None and not self.quality:
            raise ValueError("every guardrail is off: nothing would hold a bad version up")
        return self


class RolloutConfig(Section):
    """How the traffic of the variant `from` moves to the variant `to`, step by step, and when it turns back.

    `false_rollbacks` and `false_advances` are the probabilities with which a version that is no worse is turned back,
    and one that is worse by the margin goes on, at any time of the whole rollout. `consecutive_failures` of the new
    version, while the old one answers, turn it back at once. A step that is undecided after `undecided_after` seconds
    is inconclusive. Another `run` begins a rollout anew that has ended.
    """

    from_: Name = Field(alias="from")
    to: Name
    steps: tuple[RolloutStepConfig, ...] = Field(min_length=1, max_length=100)
    guardrails: GuardrailsConfig = GuardrailsConfig()
    false_rollbacks: float = Field(default=0.01, gt=0, le=0.5)
    false_advances: float = Field(default=0.05, gt=0, le=0.5)
    consecutive_failures: Annotated[Annotated[int, Field(ge=2, le=1000)] | None, OrOff] = 5
    undecided_after: Seconds = 7 * 86400.0
    run: int = Field(default=1, ge=1)

    @field_validator("steps")
    @classmethod
    def _upwards(cls, steps: tuple[RolloutStepConfig, ...]) -> tuple[RolloutStepConfig, ...]:
        for before, step in pairwise(steps):
            if step.weight <= before.weight:
                raise ValueError(f"a step's weight is {step.weight:g} after {before.weight:g}; each must be more")
        return steps


class LayerConfig(Section):
    """The part of a layer that takes part in a route's experiment: keys that fall into `slice`, bounds in [0, 1].

    Routes that name one layer exclude each other: a key falls to the same point for all of them.
    """

    name: Name
    slice: tuple[float, float]

    @field_validator("slice")
    @classmethod
    def _bounds(cls, bounds: tuple[float, float]) -> tuple[float, float]:
        low, high = bounds
        if not 0 <= low < high <= 1:
            raise ValueError(f"[{low:g}, {high:g}] is no part of [0, 1]; write one such as [0, 0.5]")
        return bounds


def _adaptive_metric(value: str) -> str:
    if not re.fullmatch(r"error_rate|feedback\.[A-Za-z0-9_.-]{1,64}", value):
        raise ValueError(f"`{value}` is neither error_rate nor feedback.NAME, with the name that callers' feedback has")
    return value


class AdaptiveConfig(Section):
    """How shares follow what is learnt: each variant gets the probability that it is the best, and `floor` at least.

    Best has the fewest errors (`metric: error_rate`), or the highest mean of what callers say (`feedback.NAME`: yes and
    no, or numbers between 0 and 1) over the last `window` seconds. Shares are reckoned anew every `every` seconds.
    """

    metric: Annotated[str, AfterValidator(_adaptive_metric)] = "error_rate"
    floor: Annotated[Share, Field(gt=0, lt=0.5)] = 0.1
    every: Seconds = 60.0
    window: Seconds = 7 * 86400.0


class ShadowConfig(Section):
    """A model that gets copies of a `sample` of a route's calls, 0 to 1, whose answers no caller sees.

    At most `max_concurrency` copies are made at once and `max_queue` wait; each has `timeout` seconds, its wait among
    them.
    """

    model: Name
    sample: Annotated[Share, Field(gt=0, le=1)] = 1.0
    max_concurrency: int = Field(default=4, ge=1, le=1024)
    max_queue: int = Field(default=64, ge=0, le=4096)
    timeout: Seconds = 60.0


class RouteConfig(Section):
    """A name that callers may send as `model`, with the rule behind it: an alias of one `model`, or `variants`.

    The others are compared with the variant `control`, the first where it is None. A share of the keys, `holdout`, and
    the keys outside of the `layer`'s slice, are kept out of the experiment and get the control.
    """

    id: Name
    model: Name | None = None
    variants: tuple[VariantConfig, ...] = ()
    sticky_by: tuple[StickyKey, ...] = ("user", "session", "affinity_key")
    fallback: tuple[Name, ...] = ()
    when_cold: Literal["wait", "fallback"] = "wait"
    rollout: RolloutConfig | None = None
    adaptive: AdaptiveConfig | None = None
    control: Name | None = None
    holdout: Annotated[Share, Field(ge=0, lt=1)] = 0.0
    layer: LayerConfig | None = None
    allow_pin: bool = True
    record_content: bool = False
    shadow: tuple[ShadowConfig, ...] = Field(default=(), max_length=8)

    @field_validator("shadow")
    @classmethod
    def _shadows(cls, shadows: tuple[ShadowConfig, ...]) -> tuple[ShadowConfig, ...]:
        models = [shadow.model for shadow in shadows]
        if len(set(models)) != len(models):
            raise ValueError("a model is listed twice")
        return shadows

    @model_validator(mode="after")
    def _experiment(self) -> Self:
        names = [variant.name for variant in self.variants]
        if self.control is not None and self.control not in names:
            raise ValueError(f"`control` is `{self.control}`, which is none of the variants")
        if (self.holdout or self.layer is not None) and not names:
            raise ValueError("`holdout` and `layer` keep keys out of an experiment; there is none without `variants`")
        return self

    @model_validator(mode="after")
    def _learns(self) -> Self:
        if self.adaptive is None:
            return self
        if self.rollout is not None:
            raise ValueError("`rollout` and `adaptive` both move traffic; give one of them")
        count = len(self.variants)
        if count < 2:
            raise ValueError("`adaptive` needs two variants at least")
        if self.adaptive.floor * count >= 1:
            floor = f"`adaptive.floor` is {self.adaptive.floor:g}"
            raise ValueError(f"{floor}; {count} variants need less than {1 / count:.3g}")
        return self

    @model_validator(mode="after")
    def _rolled_out(self) -> Self:
        if self.rollout is None:
            return self
        weights = {variant.name: variant.weight for variant in self.variants}
        for key, name in (("from", self.rollout.from_), ("to", self.rollout.to)):
            if name not in weights:
                raise ValueError(f"`rollout.{key}` is `{name}`, which is none of the variants")
        if self.rollout.from_ == self.rollout.to:
            raise ValueError(f"`rollout` goes from `{self.rollout.to}` to itself")
        if not weights[self.rollout.from_] + weights[self.rollout.to]:
            raise ValueError("`rollout` has no traffic to move: the weights of `from` and `to` are 0")
        return self

    @model_validator(mode="after")
    def _arms(self) -> Self:
        if self.when_cold == "fallback" and not self.fallback:
            raise ValueError("`when_cold: fallback` needs a `fallback` to answer meanwhile")
        if self.model is not None:
            if self.variants:
                raise ValueError("give `model` or `variants`, not both")
            return self
        if not self.variants:
            raise ValueError("`model` or `variants` is required")
        names = [v.name for v in self.variants]
        if len(set(names)) != len(names):
            raise ValueError("two variants have the same name")
        if not any(v.weight > 0 for v in self.variants):
            raise ValueError("every weight is 0: no variant would get traffic")
        return self

    @property
    def models(self) -> tuple[str, ...]:
        """The models behind it, fallbacks apart."""
        return (self.model,) if self.model is not None else tuple(variant.model for variant in self.variants)


class ExperimentsConfig(Section):
    """How long records, pairs and feedback are kept, in seconds."""

    retention: Seconds = 30 * 86400.0


class LimitsConfig(Section):
    """Largest input that is accepted at all; a model's own context is checked besides."""

    max_prompt_bytes: ByteSize = Field(default=ByteSize(4 * 1024 * 1024), gt=0)
    max_messages: int = Field(default=4096, ge=1)


class Config(Section):
    """A whole `models.yaml`."""

    default_model: Name | None = None
    models: tuple[ModelConfig, ...] = Field(min_length=1)
    routes: tuple[RouteConfig, ...] = ()
    cache: CacheConfig = CacheConfig()
    limits: LimitsConfig = LimitsConfig()
    experiments: ExperimentsConfig = ExperimentsConfig()
    memory_budget: ByteSize | None = Field(default=None, ge=64 * 1024 * 1024)

    @property
    def effective_default(self) -> str | None:
        """The model or route for requests that name none: the named one, else the only model."""
        if self.default_model is None and len(self.models) == 1:
            return self.models[0].id
        return self.default_model

    @property
    def effective_models(self) -> tuple[ModelConfig, ...]:
        """The models, with what the file says where they do not: the keys of `cache`, and that the default is warm."""
        default = self.effective_default
        behind = {default}.union(*(route.models for route in self.routes if route.id == default))
        return tuple(self._effective(model, default=model.id in behind) for model in self.models)

    def _effective(self, model: ModelConfig, *, default: bool) -> ModelConfig:
        filled: dict[str, Any] = {}
        said = {} if model.cache is None else {key: getattr(model.cache, key) for key in model.cache.model_fields_set}
        if model.cache is None or len(said) < len(CacheConfig.model_fields):
            filled["cache"] = self.cache.model_copy(update=said)
        if isinstance(model, LocalConfig) and model.warm.min is None:
            filled["warm"] = model.warm.model_copy(update={"min": int(default)})
        return model.model_copy(update=filled) if filled else model

    @property
    def digest(self) -> str:
        """SHA-256 of what the file says, in hexadecimal; of a secret only that there is one, so it may be shown."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()
