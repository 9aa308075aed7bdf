"""What may be said of the answer cache."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, ByteSize, Field, field_validator, model_validator

from polyroute.core.config.values import Seconds, Section

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
