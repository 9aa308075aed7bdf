"""W3C trace context as callers send it (https://www.w3.org/TR/trace-context/)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

_PARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[\x21-\x7e]{0,128})?")
_STATE: Final = re.compile(r"[\x20-\x7e]{1,512}")


def trace_headers(parents: Iterable[str], states: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """The headers as `Call.trace` holds them; whatever is not well formed is left out, as the standard asks."""
    parent = ",".join(parents)
    if not _PARENT.fullmatch(parent):
        return ()
    state = ",".join(states)
    return (("traceparent", parent), *((("tracestate", state),) if _STATE.fullmatch(state) else ()))
