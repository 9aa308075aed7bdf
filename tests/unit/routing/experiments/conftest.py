"""What the tests of experiments share: records, and a state database in a folder of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from polyroute.routing.experiments.database import Database, default_url
from polyroute.routing.experiments.records import CallRecord

SPLIT = (("a", 0.5), ("b", 0.5))


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(default_url(tmp_path / "state"))
    yield database
    await database.close()


@pytest.fixture
def record() -> Callable[..., CallRecord]:
    """A record of an answered call that fell to variant `a`, changed in what is given."""

    def _record(request_id: str = "r1", **changes: Any) -> CallRecord:
        values: dict[str, Any] = {
            "at": 6000.0,
            "route": "chat",
            "variant": "a",
            "model": "one",
            "version": "1",
            "shares": SPLIT,
            "sticky_by": "user",
            "hash_point": 0.25,
            "probability": 0.5,
            "first_token_s": 0.5,
            "total_s": 2.0,
            "completion_tokens": 10,
        }
        return CallRecord(request_id=request_id, **values | changes)

    return _record
