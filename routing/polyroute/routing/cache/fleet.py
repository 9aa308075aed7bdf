"""Of all machines that share a Redis, one runs for a key; the others wait for its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from polyroute.routing.cache.terms import AnswerKey, Found

if TYPE_CHECKING:  # it needs the package `redis`
    from polyroute.routing.cache.leases import Lease, Leases

LEASE_S: Final = 5.0
"""How long a machine that has died holds the others back, in seconds. One that lives renews its lease in good time."""

MOST_TURNS: Final = 3
"""How many leases are waited for which leave no answer behind; then a machine runs for itself."""

_PATIENCE_S: Final = 3600.0


class Turn:
    """This machine's turn to run, until `end`; or the answer that another one's run has left."""

    def __init__(self, leases: Leases, lease: Lease | None = None, found: Found | None = None) -> None:
        self.found = found
        self._leases = leases
        self._lease = lease
        self._renewing: asyncio.Task[None] | None = None
        if lease is not None:
            self._renewing = asyncio.create_task(self._renew(lease), name="renewal of a lease")

    @classmethod
    async def of(cls, leases: Leases, key: AnswerKey, find: Callable[[], Awaitable[Found | None]]) -> Turn:
        """Waits for the turn, or for an answer that `find` returns. Where Redis cannot be asked it is there at once."""
        for _ in range(MOST_TURNS):
            lease = await leases.acquire(key, LEASE_S)
            if lease is not None:
                turn = cls(leases, lease)
                try:  # another machine may have been done between the look before this and the lease
                    turn.found = await find() if lease.held else None
                except BaseException:
                    await turn.end()
                    raise
                return turn
            if not await leases.freed(key, _PATIENCE_S):
                break
            found = await find()
            if found is not None:
                return cls(leases, found=found)
        return cls(leases)

    async def end(self, kept: Callable[[], Awaitable[None]] | None = None) -> None:
        """Lets others have theirs, once what was `kept` stands where they look for it."""
        if self._lease is None or self._renewing is None:
            return
        try:
            if kept is not None:
                await kept()
        finally:
            self._renewing.cancel()
            await self._leases.release(self._lease)

    async def _renew(self, lease: Lease) -> None:
        while True:
            await asyncio.sleep(LEASE_S / 3)
            await self._leases.renew(lease, LEASE_S)
