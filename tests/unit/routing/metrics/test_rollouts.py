"""Where a rollout stands is read at every scrape, and what was seen of it is kept across reloads."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from polyroute.routing.metrics import Metrics
from polyroute.routing.views import RolloutStanding
from tests.counts import total

STANDING = RolloutStanding("r", "running", 0.25, {"pending": 0, "running": 2, "rolled_back": 0})


def test_one_state_is_1_and_every_move_has_its_series() -> None:
    registry = CollectorRegistry()
    standings = [STANDING]
    Metrics(registry, ("r",)).watch_rollouts(lambda: standings)
    states = {name: total(registry, "polyroute_rollout_state", route="r", state=name) for name in STANDING.moves}
    assert states == {"pending": 0, "running": 1, "rolled_back": 0}
    assert total(registry, "polyroute_rollout_weight", route="r") == 0.25
    assert total(registry, "polyroute_rollout_moves_total", state="running") == 2
    assert total(registry, "polyroute_rollout_moves_total", state="rolled_back") == 0
    standings.clear()
    assert total(registry, "polyroute_rollout_state") is None
