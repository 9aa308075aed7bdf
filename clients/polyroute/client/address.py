"""Reads the forms in which a server's address may be given."""

from __future__ import annotations

import re
from dataclasses import dataclass

DEFAULT_PORT = 50051

_SCHEMES = {"http": (False, 80), "grpc": (False, DEFAULT_PORT), "https": (True, 443), "grpcs": (True, DEFAULT_PORT)}
_HOST_PORT = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%\w]+\]|[^\s:/\[\]@?#]*)(?::(?P<port>\d{1,5}))?")
_ANY = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]", "": "127.0.0.1"}  # noqa: S104 -- what servers bind, not what we bind


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is: `target` as gRPC reads it; `tls` is None where the address does not say."""

    target: str
    tls: bool | None = None

    @property
    def loopback(self) -> bool:
        """Whether the server is on this machine for certain, so that no proxy stands between."""
        return self.target.startswith(("127.", "localhost:", "[::1]:", "unix:"))

    @property
    def many(self) -> bool:
        """Whether the name stands for several servers, over which calls are spread."""
        return self.target.startswith("dns:")

    def __str__(self) -> str:
        return self.target


def parse_address(text: str, default_port: int = DEFAULT_PORT) -> Address:
    """Reads `host:port`, `host`, `[::1]:port`, `http(s)://`, `grpc(s)://`, `unix:/path`, or `dns:///host:port`.

    An address that a server binds to (`0.0.0.0:50051`, `:50051`) is read as this machine. Raises `ValueError`.
    """
    text = text.strip()
    if text.startswith("unix:"):
        if len(text) == len("unix:"):
            raise ValueError("address: `unix:` needs the path of a socket")
        return Address(text)
    if text.startswith("dns:"):
        if not text.removeprefix("dns:").strip("/"):
            raise ValueError(f"address: `{text}` names no host")
        return Address(text)
    tls = None
    rest = text
    if "://" in text:
        scheme, rest = text.split("://", 1)
        if scheme not in _SCHEMES:
            raise ValueError(f"address: unknown scheme `{scheme}`; known are {', '.join(_SCHEMES)}, unix: and dns:///")
        tls, default_port = _SCHEMES[scheme]
        rest = rest.removesuffix("/")
    found = _HOST_PORT.fullmatch(rest)
    if not rest or found is None:
        hint = "; an IPv6 address stands in brackets, such as [::1]:50051" if rest.count(":") > 1 else ""
        raise ValueError(f"address: `{text}` is not host:port{hint}")
    port = int(found["port"] or default_port)
    if not 0 < port < 65536:
        raise ValueError(f"address: `{text}`: port {port} is not from 1 to 65535")
    host = _ANY.get(found["host"], found["host"])
    return Address(f"{host}:{port}", tls)
