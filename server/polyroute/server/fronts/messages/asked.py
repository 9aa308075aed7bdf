"""Of whatever was asked: that it has failed, or is not wanted any more."""

from __future__ import annotations

from typing import Any

import msgspec

from polyroute.core.event import Attempt


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """What was asked as `id` has ended with an error: the name of its class in `core.errors`, and what that one has."""

    id: int
    kind: str
    message: str
    retry_after_s: float | None = None
    metadata: dict[str, str] = {}
    attempts: tuple[Attempt, ...] = ()
    quoted: str = ""
    shared: bool = False
    more: dict[str, Any] = {}


class Withdraw(msgspec.Struct, frozen=True, tag="withdraw"):
    """Who asked `id` has left; what was asked ends. Answers that are on their way are not wanted any more."""

    id: int
