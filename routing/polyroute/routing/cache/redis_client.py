"""A client of the Redis that machines share, and how it may be spoken of."""

from __future__ import annotations

from typing import Final, TypeAlias
from urllib.parse import urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

PREFIX: Final = "polyroute:"
"""How every key that the router uses begins."""

_MOST_CONNECTIONS: Final = 32
_CONNECT_S: Final = 1.0

Client: TypeAlias = Redis


def connect(url: str) -> Client:
    """A client for `redis://`, `rediss://` (TLS) or `unix://`; connects when it is first used. Raises `ValueError` for
    a URL that is none of these. Its calls have no time limit of their own."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=_MOST_CONNECTIONS,
        timeout=None,
        socket_connect_timeout=_CONNECT_S,
        socket_timeout=None,
        retry=Retry(NoBackoff(), 1),  # a connection that the server has closed meanwhile
        protocol=2,
    )
    return Redis.from_pool(pool)


def location_of(url: str) -> str:
    """The URL without user, password and options."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return f"unix://{parts.path}"
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or "localhost"
    return f"{parts.scheme}://{host}:{parts.port or 6379}{parts.path}"
