"""The web console: static files that talk to the API of the same server, compressed once."""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from aiohttp import web

INDEX: Final = "index.html"
MEDIA_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""What is served, by the end of its name; licences are text, and everything else in the folder is not served."""

SECURITY: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types dompurify"
    ),
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-cache",
    "Vary": "Accept-Encoding",
}
_LEVEL: Final = 9


@dataclass(frozen=True, slots=True)
class StaticFile:
    """One file, as it is and by gzip. `etag` is weak: both forms have it."""

    body: bytes
    gzipped: bytes
    media_type: str
    etag: str


@cache
def console_files() -> Mapping[str, StaticFile]:
    """Every file that is served, by its path in the folder; read and compressed at the first call."""
    return dict(_walk(files("polyroute.server") / "console", ""))


def _walk(folder: Traversable, prefix: str) -> Iterator[tuple[str, StaticFile]]:
    for entry in folder.iterdir():
        path = prefix + entry.name
        if entry.is_dir():
            yield from _walk(entry, f"{path}/")
        elif media_type := _media_type(entry.name):
            body = entry.read_bytes()
            gzipped = gzip.compress(body, _LEVEL, mtime=0)
            yield path, StaticFile(body, gzipped, media_type, f'W/"{hashlib.sha256(body).hexdigest()[:20]}"')


def _media_type(name: str) -> str:
    if name.startswith("LICENSE"):
        return "text/plain; charset=utf-8"
    return MEDIA_TYPES.get(name[name.rfind(".") :], "")


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether a request's `Accept-Encoding` takes gzip (RFC 9110, section 12.5.3)."""
    weights = {}
    for item in accept_encoding.lower().split(","):
        coding, _, parameter = item.partition(";")
        refused = re.fullmatch(r"\s*q\s*=\s*0(\.0*)?\s*", parameter)
        weights[coding.strip()] = not refused
    return weights.get("gzip", weights.get("*", False))


async def index(http: web.Request) -> web.Response:
    """The page itself."""
    return _answer(http, console_files()[INDEX])


async def asset(http: web.Request) -> web.Response:
    """One file of the console's folder. What is not in there is not found: a path is looked up, never opened."""
    found = console_files().get(http.match_info["file"])
    if found is None:
        raise web.HTTPNotFound
    return _answer(http, found)


def _answer(http: web.Request, file: StaticFile) -> web.Response:
    headers = {**SECURITY, "ETag": file.etag}
    known = http.if_none_match or ()
    if any(f'"{tag.value}"' == file.etag.removeprefix("W/") or tag.value == "*" for tag in known):
        return web.Response(status=304, headers=headers)
    headers["Content-Type"] = file.media_type
    if not accepts_gzip(http.headers.get("Accept-Encoding", "")):
        return web.Response(body=file.body, headers=headers)
    return web.Response(body=file.gzipped, headers={**headers, "Content-Encoding": "gzip"})
