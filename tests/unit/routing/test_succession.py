"""From one configuration to the next: what stays, what changes, what leaves, and what calls see of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from polyroute.backends.echo import EchoBackend, Script
from polyroute.core.backend import Backend, ModelState
from polyroute.core.call import Call
from polyroute.core.config import Config, ModelConfig
from polyroute.core.errors import Draining, UnknownModel
from polyroute.core.event import CacheResult, Finished, Started
from polyroute.core.request import CacheMode, CacheOptions, Request, RoutingOptions, Sampling
from polyroute.routing.cache.answers import Answers
from polyroute.routing.departures import Departures
from polyroute.routing.gateway import Gateway
from polyroute.routing.metrics import Metrics
from polyroute.routing.registry import Deployment, Snapshot
from polyroute.routing.stack import deploy
from polyroute.routing.streams import generator
from polyroute.routing.succession import Changes, Succession
from tests.counts import total

LOCAL: dict[str, Any] = {"id": "one", "type": "local"}
REMOTE: dict[str, Any] = {"id": "two", "type": "remote", "base_url": "http://two:1"}
BASE: dict[str, Any] = {"default_model": "one", "models": [LOCAL, REMOTE]}
BYPASS = CacheOptions(CacheMode.BYPASS)


@dataclass
class Stage:
    """A gateway whose configuration can be changed; `built` has every backend that was made, in order."""

    answers: Answers
    metrics: Metrics
    departures: Departures
    built: list[EchoBackend] = field(default_factory=list)
    script: Script = field(default_factory=Script)

    def begin(self, config: dict[str, Any]) -> None:
        parsed = Config.model_validate(config)
        deployments = {model.id: self.build(model) for model in parsed.effective_models}
        self.gateway = Gateway(Snapshot.of(parsed, deployments), self.answers, self.metrics)
        self.succession = Succession(self.gateway, self.build, self.departures)

    def build(
        self, config: ModelConfig, *, backend: Backend | None = None, before: Deployment | None = None
    ) -> Deployment:
        if backend is None:
            backend = EchoBackend(config.id, replica=f"{config.id}#{len(self.built)}", script=self.script)
            self.built.append(backend)
        return deploy(config, backend, answers=self.answers, metrics=self.metrics, before=before)

    async def to(self, *models: dict[str, Any], **more: Any) -> Changes:
        changed = {"default_model": models[0]["id"], "models": list(models), **more}
        return await self.succession.to(Config.model_validate(changed))

    def deployment(self, id: str) -> Deployment:
        return self.gateway.snapshot.deployments[id]


@pytest.fixture
async def stage(answers: Answers, metrics: Metrics) -> AsyncIterator[Stage]:
    stage = Stage(answers, metrics, Departures(60))
    stage.begin(BASE)
    yield stage
    await stage.departures.close()
    await stage.gateway.close()


def asks(model: str = "one", **options: Any) -> Call:
    return Call(Request(model=model, prompt="a b", **{"cache": BYPASS, **options}), "r1")


async def test_nothing_that_stays_the_same_is_touched(stage: Stage) -> None:
    before = dict(stage.gateway.snapshot.deployments)
    changes = await stage.to(LOCAL, REMOTE, {**REMOTE, "id": "three"})
    assert changes == Changes(added=["three"])
    for id, deployment in before.items():
        assert stage.deployment(id) is deployment
    assert stage.built[2].started
    assert not any(backend.stopped for backend in stage.built)


async def test_limits_change_around_a_backend_that_stays(stage: Stage, take: Callable[..., Any]) -> None:
    old = stage.deployment("one")
    request = Request(model="one", prompt="a b", sampling=Sampling(temperature=0))
    await take(stage.gateway.generate, Call(request, "r1"))
    changes = await stage.to({**LOCAL, "max_concurrency": 3, "timeout": 5, "cache": {"mode": "off"}}, REMOTE)
    assert changes == Changes(adjusted=["one"])
    new = stage.deployment("one")
    assert new.backend is old.backend
    assert new.permits is old.permits
    assert (new.permits.max_concurrency, new.shelf.config.mode) == (3, "off")
    assert stage.built[0].adopted == [new.config]
    await take(stage.gateway.generate, Call(request, "r2"))
    assert len(stage.built[0].calls) == 2  # from the cache it would be one
    assert (await stage.gateway.cache_stats("one")).models[0].misses == 1  # what was counted goes on


async def test_a_new_limit_holds_for_calls_that_have_a_permit_already(
    stage: Stage, take: Callable[..., Any], until: Callable[..., Any]
) -> None:
    gate = asyncio.Event()
    stage.built[0].script = Script(gate=gate)
    running = [asyncio.create_task(take(stage.gateway.generate, asks())) for _ in range(2)]
    await until(lambda: stage.built[0].open == 2)
    await stage.to({**LOCAL, "max_concurrency": 2, "max_queue": 5}, REMOTE)
    waiting = asyncio.create_task(take(stage.gateway.generate, asks()))
    await until(lambda: stage.gateway.model("one").queued)
    assert stage.gateway.model("one").in_flight == 2
    await stage.to({**LOCAL, "max_concurrency": 3, "max_queue": 5}, REMOTE)
    await until(lambda: stage.built[0].open == 3)  # a permit more: the one that waits has it at once
    gate.set()
    await asyncio.gather(*running, waiting)
    assert stage.gateway.model("one").in_flight == 0


async def test_a_call_in_flight_ends_on_the_backend_that_it_began_with(
    stage: Stage, take: Callable[..., Any], until: Callable[..., Any]
) -> None:
    gate = asyncio.Event()
    old = stage.built[0]
    old.script = Script(texts=["x", "y"], gate=gate, gate_after=1)
    running = asyncio.create_task(take(stage.gateway.generate, asks()))
    await until(lambda: old.open)
    changes = await stage.to({**LOCAL, "dtype": "float32"}, REMOTE)
    assert changes == Changes(rebuilt=["one"])
    route = (await take(stage.gateway.generate, asks()))[0].route
    assert route.attempts[0].replica == "one#2"
    assert not old.stopped
    gate.set()
    assert isinstance((await running)[-1], Finished)
    await until(lambda: old.stopped)
    assert stage.gateway.model("one").in_flight == 0


@pytest.mark.parametrize(
    ("change", "stays"),
    [({"max_concurrency": 3}, True), ({"tls": {"verify": False}}, False)],
    ids=["adjusted", "rebuilt"],
)
async def test_a_run_that_calls_share_goes_on_over_a_reload_and_is_joined_after_it(
    stage: Stage, take: Callable[..., Any], until: Callable[..., Any], change: dict[str, Any], stays: bool
) -> None:
    gate = asyncio.Event()
    old = stage.built[1]
    old.script = Script(texts=["x", "y"], gate=gate, gate_after=1)
    request = Request(model="two", prompt="a b", sampling=Sampling(temperature=0))
    first = asyncio.create_task(take(stage.gateway.generate, Call(request, "r1")))
    await until(lambda: old.open)
    await stage.to(LOCAL, {**REMOTE, **change})
    second = asyncio.create_task(take(stage.gateway.generate, Call(request, "r2")))
    await until(lambda: stage.deployment("two").cached.ledger.flights.following == 2)
    first.cancel()  # with it the last call has left that knew the backend
    await asyncio.wait({first})
    for _ in range(20):  # turns of the loop in which it would be stopped
        await asyncio.sleep(0)
    assert not old.stopped
    gate.set()
    events = await second
    assert events[0].route.cache is CacheResult.COALESCED
    assert "".join(event.text for event in events[1:-1]) == "xy"
    if not stays:
        await until(lambda: old.stopped)
    assert [len(backend.calls) for backend in stage.built] == ([0, 1] if stays else [0, 1, 0])
    assert (await take(stage.gateway.generate, Call(request, "r3")))[0].route.cache is CacheResult.HIT
    assert stage.gateway.model("two").in_flight == 0


async def test_a_run_of_other_options_is_not_joined_after_a_reload(
    stage: Stage, take: Callable[..., Any], until: Callable[..., Any]
) -> None:
    gate = asyncio.Event()
    old = stage.built[0]
    old.script = Script(gate=gate)
    request = Request(model="one", prompt="a b", sampling=Sampling(temperature=0))
    first = asyncio.create_task(take(stage.gateway.generate, Call(request, "r1")))
    await until(lambda: old.open)
    await stage.to({**LOCAL, "dtype": "float32"}, REMOTE)
    route = (await take(stage.gateway.generate, Call(request, "r2")))[0].route
    assert (route.cache, route.attempts[-1].replica) == (CacheResult.MISS, "one#2")
    gate.set()
    assert isinstance((await first)[-1], Finished)
    await until(lambda: old.stopped)


async def test_a_fallback_that_was_removed_still_answers_who_began_with_it(
    stage: Stage, take: Callable[..., Any], until: Callable[..., Any]
) -> None:
    """The call has not come to the removed model yet when that is removed, but its plan names it."""
    route = {"id": "r", "variants": [{"name": "a", "model": "one"}], "fallback": ["two"]}
    await stage.to(LOCAL, REMOTE, routes=[route])
    one, two = stage.built
    gate = asyncio.Event()
    one.script = Script(gate=gate, error=Draining("no"))
    running = asyncio.create_task(take(stage.gateway.generate, asks("r")))
    await until(lambda: one.open)
    assert (await stage.to(LOCAL)).removed == ["two"]
    with pytest.raises(UnknownModel):
        await take(stage.gateway.generate, asks("two"))
    gate.set()
    assert [a.deployment for a in (await running)[0].route.attempts] == ["one", "two"]
    await until(lambda: two.stopped)


@asynccontextmanager
async def streaming(stage: Stage, backend: EchoBackend) -> AsyncIterator[asyncio.Event]:
    """A stream of that backend that goes on until the event is set, and that ends well unless it has been cut."""
    gate = asyncio.Event()
    backend.script = Script(texts=["x", "y"], gate=gate, gate_after=1)
    async with aclosing(generator(stage.gateway.generate(asks(backend.model)))) as events:
        assert isinstance(await anext(events), Started)
        yield gate
        if gate.is_set():
            assert isinstance([event async for event in events][-1], Finished)


async def test_a_stream_longer_than_the_grace_ends_well(
    answers: Answers, metrics: Metrics, until: Callable[..., Any]
) -> None:
    """The grace is for memory that is needed: a peer takes none, and a local model's is not needed here."""
    stage = Stage(answers, metrics, Departures(0))
    stage.begin(BASE)
    local, peer = stage.built
    async with streaming(stage, local) as one, streaming(stage, peer) as two:
        await stage.to({**LOCAL, "dtype": "float32"}, {**REMOTE, "id": "three"})
        assert stage.departures.names == {"one", "two"}
        for _ in range(20):  # turns of the loop in which they would be
            await asyncio.sleep(0)
        assert not local.stopped
        assert not peer.stopped
        one.set()
        two.set()
    await until(lambda: local.stopped and peer.stopped)
    assert not stage.departures.names


async def test_streams_of_local_models_whose_memory_is_needed_are_cut_after_the_grace(
    answers: Answers, metrics: Metrics
) -> None:
    stage = Stage(answers, metrics, Departures(0))
    stage.begin(BASE)
    local, peer = stage.built
    async with streaming(stage, local), streaming(stage, peer) as two:
        await stage.to({"id": "new", "type": "local"})
        assert await stage.departures.next_for(stage.built[2])
        assert local.stopped
        assert not peer.stopped
        two.set()


async def test_a_stream_without_end_is_cut_at_last(
    answers: Answers, metrics: Metrics, until: Callable[..., Any]
) -> None:
    stage = Stage(answers, metrics, Departures(60, longest_s=0))
    stage.begin(BASE)
    async with streaming(stage, stage.built[1]):
        await stage.to(LOCAL)
        await until(lambda: stage.built[1].stopped)
    assert not stage.departures.names


async def test_a_server_that_stops_waits_for_no_stream(stage: Stage) -> None:
    async with streaming(stage, stage.built[1]):
        await stage.to(LOCAL)
        await stage.departures.close()
        assert stage.built[1].stopped


async def test_whoever_lacks_memory_learns_when_a_local_model_has_left(stage: Stage) -> None:
    async with streaming(stage, stage.built[0]) as gate:
        await stage.to({**LOCAL, "dtype": "float32"}, REMOTE)
        assert stage.built[2].started
        waiting = asyncio.create_task(stage.departures.next_for(stage.built[-1]))
        await asyncio.sleep(0)
        assert not waiting.done()
        # What that one loads itself, its last calls wait for.
        assert not await stage.departures.next_for(stage.built[0])
        gate.set()
    assert await waiting
    assert stage.built[0].stopped
    assert not await stage.departures.next_for(stage.built[-1])


async def test_a_model_that_does_not_start_keeps_no_other_from_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = EchoBackend.start

    async def starts(self: EchoBackend) -> None:
        if self.model == "bad":
            raise RuntimeError("out of luck")
        await start(self)

    monkeypatch.setattr(EchoBackend, "start", starts)
    with capture_logs() as logs:
        changes = await stage.to(LOCAL, {"id": "bad", "type": "local"}, {"id": "good", "type": "local"})
    assert changes == Changes(added=["bad", "good"], removed=["two"], adjusted=[])
    assert [(entry["event"], entry["model"]) for entry in logs if entry["log_level"] == "error"] == [
        ("deployment.start_failed", "bad")
    ]
    assert stage.built[3].started


async def test_a_name_that_is_in_force_again_keeps_its_series(
    stage: Stage, registry: CollectorRegistry, take: Callable[..., Any]
) -> None:
    labels = {"model": "two", "cache": "bypass", "outcome": "ok"}
    async with streaming(stage, stage.built[1]) as gate:
        await stage.to(LOCAL)
        await stage.to(LOCAL, REMOTE)
        await take(stage.gateway.generate, asks("two"))
        gate.set()
    await stage.departures.close()
    await asyncio.sleep(0)
    assert total(registry, "polyroute_requests_total", **labels) == 2


async def test_who_shares_things_is_told_of_each_configuration_in_force(stage: Stage) -> None:
    told: list[Config] = []
    succession = Succession(stage.gateway, stage.build, stage.departures, told.append)
    config = Config.model_validate({**BASE, "memory_budget": "1GiB"})
    await succession.to(config)
    assert told == [config]


async def test_a_peer_that_leaves_gives_no_memory_back(
    stage: Stage, take: Callable[..., Any], until: Callable[..., Any]
) -> None:
    gate = asyncio.Event()
    stage.built[1].script = Script(gate=gate)
    running = asyncio.create_task(take(stage.gateway.generate, asks("two")))
    await until(lambda: stage.built[1].open)
    await stage.to(LOCAL)
    assert not await stage.departures.next_for(stage.built[-1])
    gate.set()
    await running


async def test_a_peer_that_is_rebuilt_keeps_its_permits(
    stage: Stage, take: Callable[..., Any], until: Callable[..., Any]
) -> None:
    """It is the same peer, and the calls in flight occupy it whoever sent them."""
    gate = asyncio.Event()
    stage.built[1].script = Script(gate=gate)
    running = asyncio.create_task(take(stage.gateway.generate, asks("two")))
    await until(lambda: stage.built[1].open)
    changes = await stage.to(LOCAL, {**REMOTE, "peer_model": "other", "max_concurrency": 7})
    assert changes == Changes(rebuilt=["two"])
    view = stage.gateway.model("two")
    assert (view.in_flight, view.max_concurrency) == (1, 7)
    gate.set()
    await running
    assert stage.gateway.model("two").in_flight == 0


async def test_routes_and_default_change_without_touching_a_model(stage: Stage) -> None:
    before = dict(stage.gateway.snapshot.deployments)
    route = {"id": "chat", "variants": [{"name": "a", "model": "two"}]}
    await stage.to({**LOCAL, "warm": {"min": 1}}, REMOTE, routes=[route], default_model="chat")
    assert (stage.gateway.default_model, stage.gateway.model("").id) == ("chat", "chat")
    assert stage.deployment("one") is before["one"]
    assert (
        stage.gateway.explain(Call(Request(prompt="x", routing=RoutingOptions(user="u")), "r1")).attempts[0].model
        == "two"
    )


async def test_the_model_that_becomes_the_default_becomes_warm(stage: Stage) -> None:
    other = {"id": "other", "type": "local"}
    await stage.to(LOCAL, other)
    changes = await stage.to(LOCAL, other, default_model="other")
    assert changes == Changes(adjusted=["one", "other"])
    assert stage.deployment("other").config.warm.min == 1  # type: ignore[union-attr]
    assert stage.deployment("one").config.warm.min == 0  # type: ignore[union-attr]


async def test_a_change_of_the_type_is_another_backend(stage: Stage, until: Callable[..., Any]) -> None:
    changes = await stage.to({**REMOTE, "id": "one"}, REMOTE)
    assert changes == Changes(rebuilt=["one"])
    await until(lambda: stage.built[0].stopped)
    assert stage.gateway.model("one").type == "remote"


async def test_a_build_that_fails_changes_nothing(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    before = stage.gateway.snapshot

    def fails(*_: object) -> Snapshot:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(Snapshot, "of", fails)
    with pytest.raises(RuntimeError, match="out of luck"):
        await stage.to({**LOCAL, "max_concurrency": 2}, {**REMOTE, "id": "three"})
    assert stage.gateway.snapshot is before
    assert stage.built[2].stopped
    assert not stage.built[0].adopted
    assert stage.deployment("one").permits.max_concurrency != 2


async def test_a_preview_changes_nothing(stage: Stage) -> None:
    before = stage.gateway.snapshot
    wanted = Config.model_validate({"models": [{**LOCAL, "max_queue": 1}, {**REMOTE, "id": "three"}]})
    changes = await stage.succession.preview(wanted)
    assert changes == Changes(added=["three"], removed=["two"], adjusted=["one"])
    assert stage.gateway.snapshot is before
    assert len(stage.built) == 2


async def test_a_peer_that_hangs_holds_a_reload_up_for_a_moment_only(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hangs(self: EchoBackend) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(EchoBackend, "load", hangs)
    monkeypatch.setattr("polyroute.routing.succession.ACQUAINT_S", 0)
    await stage.to(LOCAL, REMOTE, {**REMOTE, "id": "three"})
    assert stage.gateway.model("three").status.state is ModelState.WARM


async def test_series_of_what_is_gone_end_when_it_has_left(
    stage: Stage, registry: CollectorRegistry, take: Callable[..., Any], until: Callable[..., Any]
) -> None:
    labels = {"model": "two", "cache": "bypass", "outcome": "ok"}
    gate = asyncio.Event()
    await take(stage.gateway.generate, asks("two"))
    stage.built[1].script = Script(gate=gate)
    running = asyncio.create_task(take(stage.gateway.generate, asks("two")))
    await until(lambda: stage.built[1].open)
    await stage.to(LOCAL)
    assert total(registry, "polyroute_requests_total", **labels) == 1
    gate.set()
    await running
    await until(lambda: not stage.departures.names)
    await asyncio.sleep(0)
    assert total(registry, "polyroute_requests_total", **labels) is None
    assert registry.get_sample_value("polyroute_permits_in_use", {"deployment": "two"}) is None
