"""What a reload did is said so that nobody wonders."""

from __future__ import annotations

import pytest

from polyroute.client.cli.admin import reloaded
from polyroute.client.operations import Reloaded


@pytest.mark.parametrize(
    ("done", "dry_run", "said"),
    [
        (Reloaded("h", True, adjusted=("m",)), False, ["adjusted: m"]),
        (Reloaded("h", True), False, ["changed: no model, but routes or settings"]),
        (Reloaded("h", False), False, ["nothing changed since it was read last"]),
        (Reloaded("h", False), True, ["ok"]),
    ],
)
def test_what_a_reload_did(done: Reloaded, dry_run: bool, said: list[str]) -> None:
    assert reloaded(done, dry_run=dry_run) == said
