"""The web console: three static files that talk to the API of the same server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Final

from aiohttp import web

PAGES: Final = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/console.js": ("console.js", "text/javascript; charset=utf-8"),
    "/console.css": ("console.css", "text/css; charset=utf-8"),
}
"""Path: file of `polyroute.server.console`, and its media type."""

SECURITY: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


def page(path: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Answers with one of `PAGES`, read once."""
    name, media_type = PAGES[path]
    body = (files("polyroute.server") / "console" / name).read_bytes()

    async def answer(http: web.Request) -> web.Response:
        return web.Response(body=body, headers={**SECURITY, "Content-Type": media_type})

    return answer
