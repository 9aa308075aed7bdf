"""A tier that never fails and never holds anybody up: what goes wrong in it is counted, told, and left alone for a
while."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import structlog

from polyroute.core.wait import Limit
from polyroute.routing.cache.guard import Guard
from polyroute.routing.cache.tier import BadEntry, Entry, Held, Label, Tier
from polyroute.routing.views import TierCounts

T = TypeVar("T")

_ADMIN_S: Final = 30.0
_WARN_EVERY_S: Final = 30.0

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Counts:
    """What a tier was asked and did since the server started. `skipped`: not asked, since it had failed before."""

    hits: int = 0
    misses: int = 0
    errors: int = 0
    skipped: int = 0
    stores: int = 0

    def view(self, name: str, *, read: bool = True, written: bool = True) -> TierCounts:
        """The same as plain values, of a tier of that name."""
        return TierCounts(
            name, self.hits, self.misses, self.stores, self.errors, self.skipped, read=read, written=written
        )


class GuardedTier:
    """A tier behind a time limit and two guards, for what is read and what is written: a full disk can be read."""

    def __init__(self, tier: Tier, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.tier = tier
        self.name = tier.name
        self.shared = tier.shared
        self.counts = Counts()
        self.reads = Guard(clock)
        self.writes = Guard(clock)
        self._clock = clock
        self._why = ""
        self._warned = float("-inf")

    def __repr__(self) -> str:
        return f"<GuardedTier {self.tier!r} reads={self.reads!r} writes={self.writes!r}>"

    @property
    def location(self) -> str:
        """Where it is, without secrets."""
        return self.tier.location

    @property
    def max_bytes(self) -> int:
        """Its size in bytes; 0 where it bounds itself."""
        return self.tier.max_bytes

    def resize(self, max_bytes: int) -> None:
        """Has another size from now on."""
        self.tier.max_bytes = max_bytes

    @property
    def trouble(self) -> str:
        """Why it is left out now, in words; empty where it is not."""
        if self.reads.open and self.writes.open:
            return ""
        left_out = "left out" if not self.reads.open else "not written to"
        return f"{left_out} for now: {self._why}"

    async def start(self) -> None:
        """Opens it. One that cannot be opened is no error here."""
        await self._ask("open", self.reads, self.tier.put_s, self.tier.start, None)

    def lacks(self, digest: str) -> bool:
        """Whether there is no entry under `digest`, where that is known without asking; see `Tier.lacks`."""
        return self.tier.lacks(digest)

    def get(self, digest: str) -> Awaitable[bytes | None]:
        """The entry under `digest`; None when there is none, or on any failure."""
        return self._ask("get", self.reads, self.tier.get_s, lambda: self.tier.get(digest), None)

    async def put(self, entries: Sequence[Entry]) -> int:
        """Keeps entries, in one go; returns how many were kept."""

        async def put() -> int:
            errors = [error for error in await self.tier.put(entries) if error is not None]
            if len(errors) == len(entries):
                raise errors[0]
            if errors:
                self._failed("put", _words(errors[0]), len(errors))
            return len(entries) - len(errors)

        kept = await self._ask("put", self.writes, self.tier.put_s, put, 0, of=len(entries))
        self.counts.stores += kept
        return kept

    async def delete(self, digest: str) -> int:
        """Removes one entry; returns how many there were."""
        return await self._ask("delete", self.writes, self.tier.put_s, lambda: self.tier.delete(digest), 0)

    async def entries_of(self, model: str) -> int:
        """How many entries there are: of a model, or of all where it is empty."""
        return await self._ask("count", self.reads, self.tier.put_s, lambda: self.tier.entries_of(model), 0)

    async def held(self) -> Held:
        """What it holds; nothing on any failure."""
        return await self._ask("count", self.reads, _ADMIN_S, self.tier.held, Held(complete=False))

    async def reclaim(self, stale: Callable[[Label, float], bool]) -> int:
        """Removes the entries whose label is `stale`; returns how many."""
        return await self._ask("reclaim", self.writes, _ADMIN_S, lambda: self.tier.reclaim(stale), 0)

    async def close(self) -> None:
        """Lets go of it."""
        await self.tier.close()

    def spoilt(self, why: str) -> None:
        """An entry was found that cannot be used."""
        self.counts.errors += 1
        self._warn("get", why)

    async def _ask(
        self, what: str, guard: Guard, limit_s: float, asked: Callable[[], Awaitable[T]], otherwise: T, *, of: int = 1
    ) -> T:
        """What the tier answers, or else `otherwise`; `of` is how many entries it is asked about."""
        if not guard.admits():
            self.counts.skipped += of
            return otherwise
        limit = Limit(limit_s)
        try:
            with limit:
                answer = await asked()
        except BadEntry as error:
            self.spoilt(str(error))
            guard.worked()
            return otherwise
        except TimeoutError:  # the tier's own limit of one step may be shorter
            why = f"took longer than {limit_s:g} s" if limit.passed else "took longer than one step of it may"
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a tier is a miss
            why = _words(error)
        else:
            guard.worked()
            return answer
        guard.failed()
        self._failed(what, why, of)
        return otherwise

    def _failed(self, what: str, why: str, of: int) -> None:
        self._why = why
        self.counts.errors += of
        self._warn(what, why)

    def _warn(self, what: str, why: str) -> None:
        if self._clock() - self._warned >= _WARN_EVERY_S:
            self._warned = self._clock()
            log.warning(
                "cache.failed", tier=self.name, operation=what, location=self.tier.location, error=why, effect="a miss"
            )


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
