"""The figures of the console's charts are those of `polyroute top`."""

from __future__ import annotations

import itertools
import random
from typing import Any, Final

import pytest
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from polyroute.client.exposition import Samples
from polyroute.client.load import loads
from polyroute.core.event import CacheResult, Route, Timing, Usage
from polyroute.routing.metrics import Metrics
from tests.browser.conftest import Opens

FIGURES: Final = """
async ([scrapes, model, stretch]) => {
  const { samplesOf } = await import("/console/operate/exposition.js");
  const { changes, seriesOf } = await import("/console/operate/traffic.js");
  const read = scrapes.map(samplesOf);
  const points = read.slice(1).map((now, i) => ({ at: i, seconds: 2, by: changes(read[i], now) }));
  return seriesOf(points, model, stretch);
}
"""
MODELS: Final = ("m", 'n "quoted" \\ n', "org/o")


class Served:
    """What a server would answer `/metrics` with."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry, MODELS)
        self.gauges = {
            name: Gauge(f"polyroute_{name}", "", ("deployment",), registry=self.registry)
            for name in ("permits_limit", "permits_in_use", "queued")
        }
        for model in MODELS:
            self.gauges["permits_limit"].labels(model).set(4)

    def call(self, model: str, cache: CacheResult, outcome: str, first_token_s: float) -> None:
        self.metrics.call_begun()
        route = Route(requested=model, deployment=model, cache=cache)
        timing = Timing(first_token_s=first_token_s, total_s=2 * first_token_s)
        self.metrics.call_ended(route, outcome, timing, Usage(3, 10))

    def scrape(self) -> str:
        return generate_latest(self.registry).decode()


def history(seed: int) -> list[str]:
    """Scrapes of a server that begins anew half way."""
    rng = random.Random(seed)
    scrapes = []
    for _ in range(2):
        served = Served()
        for _ in range(4):
            for _ in range(rng.randrange(30)):
                cache = rng.choice((CacheResult.MISS, CacheResult.HIT, CacheResult.COALESCED))
                outcome = rng.choice(("ok", "ok", "PEER_FAILED", "CANCELLED"))
                served.call(rng.choice(MODELS), cache, outcome, rng.expovariate(3))
            for gauge in ("permits_in_use", "queued"):
                for model in MODELS:
                    served.gauges[gauge].labels(model).set(rng.randrange(3))
            scrapes.append(served.scrape())
    return scrapes


@pytest.mark.parametrize("seed", range(5))
async def test_the_figures_are_those_of_the_command_line(opens: Opens, seed: int) -> None:
    scrapes = history(seed)
    page = await opens("/")
    for model in MODELS:
        drawn: dict[str, list[Any]] = await page.evaluate(FIGURES, [scrapes, model, 1])
        for i, (before, now) in enumerate(itertools.pairwise(scrapes)):
            (load,) = (one for one in loads(Samples(before), Samples(now), 2.0) if one.model == model)
            assert drawn["calls"][i] == pytest.approx(load.calls)
            assert drawn["tokens"][i] == pytest.approx(load.tokens)
            assert drawn["errors"][i] == pytest.approx(load.calls * (load.errors or 0))
            assert drawn["first50"][i] == pytest.approx(load.first_token_p50_s)
            assert drawn["hits"][i] == pytest.approx(load.hits)
            assert (drawn["inFlight"][i], drawn["queued"][i]) == (load.in_flight, load.queued)


async def test_all_models_together_are_the_sum_and_a_stretch_is_its_mean(opens: Opens) -> None:
    scrapes = history(7)
    page = await opens("/")
    each = [await page.evaluate(FIGURES, [scrapes, model, 1]) for model in MODELS]
    whole = await page.evaluate(FIGURES, [scrapes, "", 1])
    smooth = await page.evaluate(FIGURES, [scrapes, "", 3])
    for name in ("calls", "errors", "tokens", "inFlight", "queued"):
        assert whole[name] == pytest.approx([sum(values) for values in zip(*(one[name] for one in each), strict=True)])
    assert smooth["calls"][-1] == pytest.approx(sum(whole["calls"][-3:]) / 3)
    assert smooth["inFlight"] == whole["inFlight"]
