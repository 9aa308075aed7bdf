"""Ports that several processes of one server listen on, and nobody else."""

from __future__ import annotations

import socket

from polyroute.server.app import BindError, taken
from polyroute.server.settings import Address


class Port:
    """An address kept for processes that listen there with SO_REUSEPORT: bound here, which takes no connections.

    Where another server has it already, or any other program, it is refused: that server's processes would get a part
    of our connections, and ours of theirs. Raises `BindError`.
    """

    def __init__(self, address: Address) -> None:
        self._held: list[socket.socket] = []
        port = address.port
        try:
            for family, _, _, _, at in _resolved(address):
                port = self._take(family, (at[0], port, *at[2:]))
        except OSError as error:
            self.close()
            raise BindError(taken(address, f": {error.strerror}" if error.strerror else "")) from error
        self.address = Address(address.host, port, address.source)

    def close(self) -> None:
        """Lets it go."""
        for held in self._held:
            held.close()

    def _take(self, family: int, at: tuple[object, ...]) -> int:
        """Binds; returns the port, which the system chooses for 0."""
        with _bound(family, at, shared=False) as alone:  # which fails where anybody listens there
            at = (at[0], alone.getsockname()[1], *at[2:])
        held = _bound(family, at, shared=True)
        self._held.append(held)
        return int(held.getsockname()[1])


def _resolved(address: Address) -> list[tuple[int, int, int, str, tuple[object, ...]]]:
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return [(int(family), int(kind), protocol, name, at) for family, kind, protocol, name, at in found]


def _bound(family: int, at: tuple[object, ...], *, shared: bool) -> socket.socket:
    end = socket.socket(family, socket.SOCK_STREAM)
    try:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            end.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        end.bind(at)
    except OSError:
        end.close()
        raise
    return end
