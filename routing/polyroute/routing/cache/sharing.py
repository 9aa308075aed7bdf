"""Tells other machines, through Redis, what has been invalidated here, and hears what was elsewhere.

Redis holds the last time of each name in a hash, and single answers that were invalidated in a sorted set; each change
is also published. Who connects reads both and adds what it alone knows, so nobody needs to have been there: a machine
that was cut off catches up when it is back, and a Redis that has lost its memory is told again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import structlog
from redis.exceptions import RedisError

from polyroute.routing.cache.invalidation_log import Kind, Record
from polyroute.routing.cache.invalidations import NOBODY, Invalidations
from polyroute.routing.cache.redis_client import PREFIX, Client

MERGE_EVERY_S: Final = 10.0
"""So late is another machine at most, while Redis can be reached: where a message was lost."""

_TIMES: Final = PREFIX + "invalidated"
_FORGOTTEN: Final = PREFIX + "forgotten"
_CHANNEL: Final = PREFIX + "invalidations"
_REMEMBERED_S: Final = 3600.0
"""How long single answers that were invalidated are told to those who connect."""
_MOST_FORGOTTEN: Final = 1024
_LIMIT_S: Final = 2.0
_AGAIN_S: Final = (0.5, 5.0)
_NEVER_US: Final = 2**53
"""Greater than all times that Lua's numbers, which the scripts compare, tell apart: the year 2255."""
_TELLING: Final = frozenset({Kind.MODEL, Kind.ALL, Kind.ENTRY})
_KINDS: Final = {int(kind): kind for kind in (*_TELLING, Kind.SHARED)}

# Published before it is written: a Redis that is full refuses writes alone.
_RAISE: Final = """
local had = redis.call('HGET', KEYS[1], ARGV[1])
if had and tonumber(had) >= tonumber(ARGV[2]) then return 0 end
redis.call('PUBLISH', ARGV[3], ARGV[1] .. ARGV[2])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 1
"""
_FORGET: Final = """
local had = redis.call('ZSCORE', KEYS[1], ARGV[1])
if had and tonumber(had) >= tonumber(ARGV[2]) then return 0 end
redis.call('UNLINK', KEYS[2])
redis.call('PUBLISH', ARGV[3], ARGV[1] .. ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[4])
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
return 1
"""

log = structlog.get_logger(__name__)


class Sharing:
    """One process's part in what machines tell each other. `heard` is told of each invalidation that was news here."""

    def __init__(self, client: Client, invalidations: Invalidations, *, wall: Callable[[], float] = time.time) -> None:
        self.heard: Callable[[Record], Awaitable[None]] | None = None
        self.connected = False
        """Whether what others tell is heard at once."""
        self._client = client
        self._invalidations = invalidations
        self._wall = wall
        self._raise = client.register_script(_RAISE)
        self._forget = client.register_script(_FORGET)

    def __repr__(self) -> str:
        return f"<Sharing connected={self.connected}>"

    async def tell(self, record: Record) -> None:
        """Tells the others of an invalidation here, within two seconds; where that fails, they hear of it later."""
        try:
            async with asyncio.timeout(_LIMIT_S):
                await self._tell(record.kind, record.name, record.shared)
        except (RedisError, OSError, TimeoutError) as error:
            log.warning("cache.invalidation_not_told", error=_words(error), effect="told once Redis can be reached")

    async def run(self) -> None:
        """Hears the others, until it is cancelled."""
        pause_s, told = _AGAIN_S[0], False
        while True:
            try:
                await self._listen()
            except Exception as error:  # noqa: BLE001 - whatever was wrong, the others are to be heard again
                if self.connected:
                    pause_s, told = _AGAIN_S[0], False
                self.connected = False
                if not told:
                    log.warning(
                        "cache.cut_off", error=_words(error), effect="hears of other machines' invalidations later"
                    )
                    told = True
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _AGAIN_S[1])

    async def merge(self) -> None:
        """Takes up what Redis knows and this machine does not, and the other way round."""
        now_us = int(self._wall() * 1e6)
        since = now_us - int(_REMEMBERED_S * 1e6)
        async with self._client.pipeline(transaction=False) as pipeline:
            pipeline.hgetall(_TIMES)
            pipeline.zrevrangebyscore(_FORGOTTEN, "+inf", since, start=0, num=_MOST_FORGOTTEN, withscores=True)
            times, forgotten = await pipeline.execute()
        there: dict[tuple[Kind, bytes], int] = {}
        for field, told in (*times.items(), *forgotten):
            key, shared = _key_of(field), _time_of(told)
            if key is not None and shared is not None:
                there[key] = shared
                await self._hear(*key, shared)
        if (Kind.SHARED, NOBODY) not in self._invalidations.shared():
            await self._invalidations.heard(Kind.SHARED, NOBODY, now_us)
        for (kind, name), shared in self._invalidations.shared().items():
            if shared > there.get((kind, name), 0) and (kind is not Kind.ENTRY or shared > since):
                await self._tell(kind, name, shared)

    async def _listen(self) -> None:
        async with self._client.pubsub(ignore_subscribe_messages=True) as channel:
            async with asyncio.timeout(_LIMIT_S):
                await channel.subscribe(_CHANNEL)
            while True:
                async with asyncio.timeout(_LIMIT_S):
                    await self.merge()
                self.connected = True
                until = time.monotonic() + MERGE_EVERY_S
                while (left := until - time.monotonic()) > 0:
                    message = await channel.get_message(timeout=left)
                    if message is not None:
                        await self._take(message)

    async def _take(self, message: dict[str, Any]) -> None:
        data = message.get("data")
        if not isinstance(data, bytes):
            return
        key, shared = _key_of(data[:33]), _time_of(data[33:])
        if key is not None and shared is not None:
            await self._hear(*key, shared)

    async def _hear(self, kind: Kind, name: bytes, shared: int) -> None:
        news = await self._invalidations.heard(kind, name, shared)
        if news and self.heard is not None:
            await self.heard(Record(kind, name, 0, shared))

    async def _tell(self, kind: Kind, name: bytes, shared: int) -> None:
        field = bytes([kind]) + name
        if kind is Kind.ENTRY:
            oldest = int((self._wall() - _REMEMBERED_S) * 1e6)
            answer = f"{PREFIX}answer:{name.hex()}"
            await self._forget(keys=[_FORGOTTEN, answer], args=[field, shared, _CHANNEL, oldest])
        elif kind is not Kind.BEGIN:
            await self._raise(keys=[_TIMES], args=[field, shared, _CHANNEL])


def _key_of(field: bytes) -> tuple[Kind, bytes] | None:
    """Kind and name of a field that `_tell` wrote; None for any other."""
    if len(field) != 33 or field[0] not in _KINDS:
        return None
    return _KINDS[field[0]], field[1:]


def _time_of(told: bytes | float) -> int | None:
    """A time in microseconds; None for what cannot be one."""
    try:
        shared = int(told)
    except (ValueError, OverflowError):
        return None
    return shared if 0 < shared < _NEVER_US else None


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
