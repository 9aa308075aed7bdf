"""Who may operate the server from the HTTP address."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address
from typing import Final
from urllib.parse import urlsplit

from aiohttp import HttpVersion11, web

from polyroute.core.config import ConsoleConfig
from polyroute.core.errors import PermissionDenied

FORWARDING: Final = ("Forwarded", "Via", "X-Real-IP", "X-Client-IP", "True-Client-IP", "CF-Connecting-IP")
"""Headers by which proxies tell of a caller behind them; so does everything that begins with `X-Forwarded-`."""

_SAME: Final = ("same-origin", "none")


def admit(http: web.Request, console: ConsoleConfig) -> None:
    """Raises `PermissionDenied` where the caller may not operate the server."""
    if problem := objection(http, console):
        raise PermissionDenied(f"{problem}; see `console.operate` in docs/rest.md")


def objection(http: web.Request, console: ConsoleConfig) -> str:
    """Why the caller may not operate the server, in words; empty where it may.

    A page of another site can make a browser send requests here. It cannot hide where they come from (`Origin`,
    `Sec-Fetch-Site`); and where its own name leads to this machine (DNS rebinding), that name is in `Host`. A proxy on
    this machine makes strangers look local: it tells of them in a header, or speaks HTTP/1.0, as nginx does by default.
    """
    if console.operate == "off":
        return "operating is switched off on this address"
    if _foreign(http):
        return "the request comes from a page of another site"
    name = _name(http.host)
    if console.operate == "all":
        if console.hosts is None or name in console.hosts or _local_name(name):
            return ""
        return "the server may not be operated by this name, which is none of `console.hosts`"
    if not _loopback(http.remote or ""):
        return "only this machine may operate the server from this address"
    if _forwarded(http):
        return "the request came through a proxy, and only this machine itself may operate the server"
    if not _local_name(name):
        return "only a loopback name or address may be used to operate the server from this machine"
    return ""


def _foreign(http: web.Request) -> bool:
    origin, host = http.headers.get("Origin"), http.host.lower()
    if origin is not None and origin.lower() not in (f"http://{host}", f"https://{host}"):
        return True
    return http.headers.get("Sec-Fetch-Site", "none") not in _SAME


def _forwarded(http: web.Request) -> bool:
    if http.version < HttpVersion11:
        return True
    return any(name in http.headers for name in FORWARDING) or any(
        name.lower().startswith("x-forwarded-") for name in http.headers
    )


def _name(host: str) -> str:
    """The name or address in a `Host`, without its port, in small letters; empty where there is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _local_name(name: str) -> bool:
    """Whether a name is this machine for everybody."""
    return name == "localhost" or _loopback(name)


def _loopback(address: str) -> bool:
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped.is_loopback
    return found.is_loopback
