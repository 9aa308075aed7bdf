"""Event streams as the layers hold them: iterators that can be closed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import cast

from polyroute.core.event import Event


def generator(events: AsyncIterator[Event]) -> AsyncGenerator[Event, None]:
    """`events` as something with `aclose`, for `contextlib.aclosing`: every service yields from a generator."""
    return cast("AsyncGenerator[Event, None]", events)
