"""What the fields of a request are called by those who sent it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from polyroute.core.errors import InvalidArgument

HEADERS = (
    (r"extra\.(.+)", r"\1"),
    (r"routing\.user", "X-Polyroute-User"),
    (r"routing\.session", "X-Polyroute-Session"),
    (r"routing\.affinity_key", "X-Polyroute-Affinity-Key"),
    (r"routing\.variant", "X-Polyroute-Variant"),
    (r"cache\.max_age", "X-Polyroute-Cache-Max-Age"),
    (r"request_id", "X-Request-ID"),
)
"""The names of what headers say, and of what is passed on as it is: the same in every dialect."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """Pairs of a pattern of a field's path in `polyroute.v1.GenerateRequest` and its path here; the first fits."""

    pairs: tuple[tuple[str, str], ...]

    def field(self, path: str) -> str:
        """The path that the caller knows."""
        for pattern, here in self.pairs:
            if found := re.fullmatch(pattern, path):
                return found.expand(here)
        return path

    def message(self, error: InvalidArgument) -> str:
        """The error's message with the field as the caller knows it."""
        field = self.field(error.field)
        return f"{field}: {error.problem}" if field else error.problem


AS_THEY_ARE = Dialect(())
"""For errors that name the caller's own fields already."""
