"""Of `/metrics` and the cache: what each process has to tell, and the whole."""

from __future__ import annotations

import msgspec

from polyroute.routing.views import CacheStats


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """One number on `/metrics`; `exemplar` is its labels, value and time."""

    name: str
    labels: dict[str, str]
    value: float
    exemplar: tuple[dict[str, str], float, float | None] | None = None


class Family(msgspec.Struct, frozen=True, array_like=True):
    """The samples of one metric."""

    name: str
    help: str
    kind: str
    unit: str
    samples: list[Sample]


class Collect(msgspec.Struct, frozen=True, tag="collect"):
    """Tell everything that `/metrics` has of this process; answered by `Collected`."""

    id: int


class Collected(msgspec.Struct, frozen=True, tag="collected"):
    """Everything that `/metrics` has of one process."""

    id: int
    families: list[Family]


class Counts(msgspec.Struct, frozen=True, tag="counts"):
    """What a front has counted so far, of all that must not shrink when it is gone: now and then, and at its end."""

    families: list[Family]


class Scrape(msgspec.Struct, frozen=True, tag="scrape"):
    """Somebody asks a front for `/metrics` with this `Accept`, of the samples of these names or (none) of all.

    Answered by `Exposed` until the last one.
    """

    id: int
    accept: str
    names: tuple[str, ...] = ()


class Exposed(msgspec.Struct, frozen=True, tag="exposed"):
    """A part of `/metrics` of the whole server."""

    id: int
    part: bytes
    last: bool = False


class TellCache(msgspec.Struct, frozen=True, tag="tell_cache"):
    """Tell what the cache holds, of one model or (empty) all; answered by `CacheTold` or `Failed`."""

    id: int
    model: str


class CacheTold(msgspec.Struct, frozen=True, tag="cache_told"):
    """What the cache holds, as one process sees it."""

    id: int
    stats: CacheStats
