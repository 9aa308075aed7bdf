"""What the tiers below this process's memory have in common: bytes under a digest, each entry with a label."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from polyroute.routing.cache.terms import Moment


class BadEntry(Exception):
    """One entry is not as it was written; the tier itself is well."""


class Label(msgspec.Struct, frozen=True, gc=False):
    """Whose answer an entry is, and the moment of the call that it was made for."""

    model: str
    version: str
    moment: Moment


class Entry(msgspec.Struct, frozen=True, gc=False):
    """Bytes that are to be kept under a digest for `stay_s` seconds; None is until there is no room for them."""

    digest: str
    content: bytes
    label: Label
    stay_s: float | None


@dataclass(frozen=True, slots=True)
class Held:
    """What a tier holds, in entries and bytes; `by_model` the same of each model. Not `complete` where counting all of
    it would have taken too long: then there is at least so much."""

    entries: int = 0
    bytes: int = 0
    by_model: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    complete: bool = True


class Tier(Protocol):
    """A place for entries. Any method may raise anything, and take any time: whoever asks has a limit of its own.

    `get_s` and `put_s` are those limits, in seconds; what stops waiting cancels the call. `shared`: between machines,
    not only between the processes of one.
    """

    name: str
    shared: bool
    location: str
    max_bytes: int
    get_s: float
    put_s: float

    async def start(self) -> None:
        """Opens it."""
        ...

    def lacks(self, digest: str) -> bool:
        """Whether there is no entry under `digest`, where that is known without asking; never waits."""
        ...

    async def get(self, digest: str) -> bytes | None:
        """The entry under `digest`; raises `BadEntry` for one that is not as it was written."""
        ...

    async def put(self, entries: Sequence[Entry]) -> Sequence[Exception | None]:
        """Keeps entries; returns for each, in their order, why it was not kept. Of two under one digest the last
        stays."""
        ...

    async def delete(self, digest: str) -> int:
        """Removes one entry; returns how many there were."""
        ...

    async def entries_of(self, model: str) -> int:
        """How many entries can be found: of a model, or of all where it is empty."""
        ...

    async def held(self) -> Held:
        """What it holds."""
        ...

    async def reclaim(self, stale: Callable[[Label, float], bool]) -> int:
        """Removes entries by label: `stale` is also told how long nothing was stored under it, in seconds. Returns how
        many there were."""
        ...

    async def close(self) -> None:
        """Lets go of it, without waiting for long."""
        ...
