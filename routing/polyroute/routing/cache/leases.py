"""Leases in Redis: of all machines, one at a time may run what they would all run alike.

Source: the single-instance lock of Redis's documentation (`SET NX PX` with a random token; release and renewal compare
it). A lease is a saving, no mutual exclusion: a holder that stops for longer than its time may run beside the next.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog
from redis.exceptions import RedisError

from polyroute.routing.cache.guard import Guard
from polyroute.routing.cache.redis_client import PREFIX, Client
from polyroute.routing.cache.terms import AnswerKey

_LIMIT_S: Final = 0.25
_POLL_S: Final = (0.02, 0.25)

_RENEW: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
_RELEASE: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('UNLINK', KEYS[1])
"""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to run. `held` is False where Redis could not be asked: then nobody else is held back by it."""

    name: str
    token: str
    held: bool


class Leases:
    """Leases by answer key. Nothing here raises, and each call of Redis has a short limit; one that is down is left
    alone for a while, and everybody runs for themselves."""

    def __init__(self, client: Client, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._guard = Guard(clock)
        self._renew = client.register_script(_RENEW)
        self._release = client.register_script(_RELEASE)

    async def acquire(self, key: AnswerKey, ttl_s: float) -> Lease | None:
        """The lease for `key`, which ends by itself after `ttl_s` seconds; None where another one holds it."""
        name, token = _name(key), secrets.token_hex(16)
        if not self._guard.admits():
            return Lease(name, token, held=False)
        try:
            async with asyncio.timeout(_LIMIT_S):
                given = await self._client.set(name, token, nx=True, px=max(1, int(ttl_s * 1000)))
        except (RedisError, OSError, TimeoutError) as error:
            self._failed("acquire", error)
            return Lease(name, token, held=False)
        self._guard.worked()
        return Lease(name, token, held=True) if given else None

    async def renew(self, lease: Lease, ttl_s: float) -> bool:
        """Makes it last for `ttl_s` seconds from now; False where it is lost, or Redis cannot be asked."""
        if not lease.held or not self._guard.admits():
            return False
        try:
            async with asyncio.timeout(_LIMIT_S):
                renewed = await self._renew(keys=[lease.name], args=[lease.token, max(1, int(ttl_s * 1000))])
        except (RedisError, OSError, TimeoutError) as error:
            self._failed("renew", error)
            return False
        self._guard.worked()
        return bool(renewed)

    async def release(self, lease: Lease) -> None:
        """Gives it back, unless it has gone to another one. To be called once the answer stands in Redis."""
        if not lease.held or not self._guard.admits():
            return
        try:
            async with asyncio.timeout(_LIMIT_S):
                await self._release(keys=[lease.name], args=[lease.token])
        except (RedisError, OSError, TimeoutError) as error:
            self._failed("release", error)
        else:
            self._guard.worked()

    async def freed(self, key: AnswerKey, patience_s: float) -> bool:
        """Waits until nobody holds the lease, `patience_s` seconds at most. False where that has not come about, or
        Redis cannot be asked: then the caller need not wait any longer."""
        name, until, pause_s = _name(key), time.monotonic() + patience_s, _POLL_S[0]
        while self._guard.admits():
            try:
                async with asyncio.timeout(_LIMIT_S):
                    held = await self._client.exists(name)
            except (RedisError, OSError, TimeoutError) as error:
                self._failed("wait", error)
                return False
            self._guard.worked()
            left_s = until - time.monotonic()
            if not held or left_s <= 0:
                return not held
            await asyncio.sleep(min(pause_s, left_s))
            pause_s = min(2 * pause_s, _POLL_S[1])
        return False

    def _failed(self, what: str, error: Exception) -> None:
        was = self._guard.open
        self._guard.failed()
        if was and not self._guard.open:
            log.warning("cache.leases_failed", operation=what, error=f"{type(error).__name__}: {error}", effect="none")


def _name(key: AnswerKey) -> str:
    return f"{PREFIX}lease:{key.moment.shared}:{key.digest}"
