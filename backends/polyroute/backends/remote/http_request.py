"""Requests to one peer as bytes: their heads are the same for the most part."""

from __future__ import annotations

from collections.abc import Mapping

from multidict import CIMultiDict
from yarl import URL

from polyroute.core.errors import InvalidArgument


class HttpRequests:
    """Writes requests in HTTP/1.1 (RFC 9112) to the peer at `root`, which is a URL without a query.

    A header that is configured goes before any other of its name, in whatever case.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._configured: Mapping[str, str] = {}
        self._names: frozenset[str] = frozenset()
        self._same: dict[tuple[str, str], bytes] = {}

    def written(
        self, method: str, path: str, *, configured: Mapping[str, str], own: Mapping[str, str], content: bytes | None
    ) -> bytes:
        """A request for `path` below the root, with JSON as its content where it has any.

        `own` are the headers of this request alone; raises `InvalidArgument` for one that cannot be sent.
        """
        if configured != self._configured:
            self._configured, self._same = configured, {}
            self._names = frozenset(name.lower() for name in configured)
        same = self._same.get((method, path))
        if same is None:
            same = self._same[method, path] = self._beginning(method, path, with_content=content is not None)
        lines = "" if content is None else f"Content-Length: {len(content)}\r\n"
        for name, value in own.items():
            if not value.isprintable():
                raise InvalidArgument("", f"cannot be told to the peer: its header `{name}` is not printable")
            if not self._names or name.lower() not in self._names:
                lines += f"{name}: {value}\r\n"
        return b"".join((same, lines.encode(), b"\r\n", content or b""))

    def _beginning(self, method: str, path: str, *, with_content: bool) -> bytes:
        """The lines that are the same for each request for `path`."""
        url = URL(self._root + path)
        headers = CIMultiDict(
            {
                "Host": url.host_port_subcomponent or "",
                "User-Agent": "polyroute",
                "Accept": "*/*",
                "Accept-Encoding": "identity",
            }
        )
        if with_content:
            headers["Content-Type"] = "application/json"
        headers.update(self._configured)
        lines = [f"{method} {url.raw_path_qs} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return "".join(f"{line}\r\n" for line in lines).encode()
