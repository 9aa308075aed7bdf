"""Names of peers and their addresses."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import ip_address
from typing import Final, TypeAlias
from urllib.parse import urlsplit, urlunsplit

from aiohttp.abc import AbstractResolver, ResolveResult

DNS_SCHEME: Final = "dns+"
"""Prefix of a base URL whose host is a name with many addresses, each of them a replica."""

Resolve: TypeAlias = Callable[[str, int], Awaitable[list[str]]]
"""The IP addresses of a host at a port; raises OSError where they cannot be had, UnicodeError for what is no name."""

_THREADS: Final = 2


class Names:
    """The system's resolver, in threads of its own: it may take its time, and files are not to wait for it."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="names")

    async def resolve(self, host: str, port: int) -> list[str]:
        """The addresses that the system knows, in its order (RFC 6724), of the family of the first.

        A host with an IPv4 and an IPv6 address is one replica, not two. Raises OSError, UnicodeError.
        """
        look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        found = await asyncio.get_running_loop().run_in_executor(self._executor, look_up)
        return list(dict.fromkeys(str(address[0]) for family, *_, address in found if family == found[0][0]))

    def close(self) -> None:
        """Begins nothing any more; what is being looked up ends by itself."""
        self._executor.shutdown(wait=False, cancel_futures=True)


def url_at(url: str, address: str) -> str:
    """`url` with the IP address in place of its host."""
    parts = urlsplit(url)
    host = f"[{address}]" if ip_address(address.partition("%")[0]).version == 6 else address
    return urlunsplit(parts._replace(netloc=host if parts.port is None else f"{host}:{parts.port}"))


class Fixed(AbstractResolver):
    """Gives the one address, whatever host is asked for."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """That address."""
        version = ip_address(self._address.partition("%")[0]).version
        return [
            ResolveResult(
                hostname=host,
                host=self._address,
                port=port,
                family=socket.AF_INET6 if version == 6 else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
        ]

    async def close(self) -> None:
        """Holds nothing."""
