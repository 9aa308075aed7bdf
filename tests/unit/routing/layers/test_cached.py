"""A stored answer is replayed as it was; what is not stored is run, and kept only where it is whole and may be."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from polyroute.backends.echo import EchoBackend, Script
from polyroute.core.backend import Facts, ModelState
from polyroute.core.call import Call
from polyroute.core.config import CacheConfig
from polyroute.core.errors import NotCached, WorkerDied
from polyroute.core.event import (
    CacheResult,
    Event,
    Finished,
    FinishReason,
    Route,
    Started,
    Timing,
    Token,
    TokenLogprob,
    TopLogprob,
    Usage,
)
from polyroute.core.request import CacheMode, CacheOptions, Request, RoutingOptions, Sampling, ToolCall
from polyroute.routing.cache import keeping
from polyroute.routing.cache.answers import Answers
from polyroute.routing.cache.shelf import Shelf
from polyroute.routing.layers.cached import Cached
from polyroute.routing.metrics import Metrics


def asks(mode: CacheMode = CacheMode.UNSPECIFIED, *, temperature: float | None = 0, **options: Any) -> Call:
    max_age_s = options.pop("max_age_s", None)
    sampling = Sampling(temperature=temperature)
    request = Request(prompt="a b c", sampling=sampling, cache=CacheOptions(mode, max_age_s), **options)
    return Call(request, f"r{random.random()}")


@pytest.fixture
def backend() -> EchoBackend:
    return EchoBackend("m")


class Wall:
    """A wall clock that stands still."""

    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
def make(answers: Answers, metrics: Metrics, wall: Wall) -> Callable[..., Cached]:
    def _make(backend: EchoBackend, inner: Any = None, *, local: bool = True, **config: Any) -> Cached:
        shelf = Shelf("m", local, "f", CacheConfig(**config), backend.facts)
        return Cached(inner or backend.stream, shelf, answers, metrics, wall=wall)

    return _make


@pytest.fixture
def run(answers: Answers, take: Callable[..., Any]) -> Callable[..., Any]:
    """Takes a whole answer and waits until it is stored."""

    async def _run(cached: Cached, call: Call) -> list[Event]:
        events: list[Event] = await take(cached, call)
        await answers.flush()
        return events

    return _run


def result(events: list[Event]) -> CacheResult:
    assert isinstance(events[0], Started)
    return events[0].route.cache


async def test_the_second_equal_call_is_a_replay_with_the_same_deltas(
    backend: EchoBackend, make: Callable[..., Cached], run: Callable[..., Any], wall: Wall
) -> None:
    cached = make(backend)
    first = await run(cached, asks())
    wall.now += 12
    second = await run(cached, asks())
    assert (result(first), result(second)) == (CacheResult.MISS, CacheResult.HIT)
    assert len(backend.calls) == 1
    assert second[1:] == first[1:]
    route = second[0].route
    assert (route.model, route.version, route.replica, route.cache_age_s) == ("m", "echo-1", "", 12)
    assert route.reasons == ("cache: used, temperature 0 is deterministic", "cache: found in memory, stored 12 s ago")
    assert first[0].route.reasons[-1] == "cache: not found"


async def test_what_came_at_once_is_kept_as_one(
    backend: EchoBackend, make: Callable[..., Cached], run: Callable[..., Any]
) -> None:
    async def at_once(_: Call) -> AsyncIterator[Event]:
        yield Started(Route(model="m", version="echo-1"))
        yield Token("abc", pieces=("a", "b", "c"))
        yield Token("d", last=True)
        yield Finished(FinishReason.STOP)

    cached = make(backend, at_once)
    first, second = await run(cached, asks()), await run(cached, asks())
    assert [event.pieces for event in first if isinstance(event, Token)] == [("a", "b", "c"), ()]
    tokens = [event for event in second if isinstance(event, Token)]
    assert [(token.text, token.pieces, token.last) for token in tokens] == [("abc", (), False), ("d", (), False)]


async def test_everything_in_an_answer_comes_back(
    backend: EchoBackend, make: Callable[..., Cached], run: Callable[..., Any]
) -> None:
    top = TopLogprob("é", "é".encode(), -0.5)
    tokens = (
        Token("é", logprobs=(TokenLogprob("é", "é".encode(), -0.5, (top,)),)),
        Token("", tool_calls=(ToolCall("1", "f", '{"a":'), ToolCall("1", "", "1}", 1))),
        Token("👩\u200d🚀\n"),
    )
    finished = Finished(
        FinishReason.TOOL_CALLS, Usage(3, 4, 2), Timing(queue_s=1, backend_s=2), matched_stop="", seed=-(2**63)
    )

    async def inner(_: Call) -> AsyncIterator[Event]:
        yield Started(Route(model="m", version="echo-1"))
        for token in tokens:
            yield token
        yield finished

    cached = make(backend, inner)
    await run(cached, asks())
    replay = await run(cached, asks())
    assert result(replay) is CacheResult.HIT
    assert tuple(replay[1:-1]) == tokens
    assert replay[-1] == Finished(FinishReason.TOOL_CALLS, Usage(3, 4, 2), Timing(), "", -(2**63))


@pytest.mark.parametrize(
    ("mode", "stored_before", "expected", "runs", "stored_after"),
    [
        (CacheMode.BYPASS, True, CacheResult.BYPASS, 2, True),
        (CacheMode.BYPASS, False, CacheResult.BYPASS, 1, False),
        (CacheMode.REFRESH, True, CacheResult.BYPASS, 2, True),
        (CacheMode.REFRESH, False, CacheResult.BYPASS, 1, True),
        (CacheMode.ONLY_IF_CACHED, True, CacheResult.HIT, 1, True),
    ],
)
async def test_a_request_may_say_how_it_uses_the_cache(
    backend: EchoBackend,
    make: Callable[..., Cached],
    run: Callable[..., Any],
    mode: CacheMode,
    stored_before: bool,
    expected: CacheResult,
    runs: int,
    stored_after: bool,
) -> None:
    cached = make(backend)
    if stored_before:
        await run(cached, asks())
    assert result(await run(cached, asks(mode))) is expected
    assert len(backend.calls) == runs
    if stored_after:
        assert result(await run(cached, asks(CacheMode.ONLY_IF_CACHED))) is CacheResult.HIT
    else:
        with pytest.raises(NotCached):
            await run(cached, asks(CacheMode.ONLY_IF_CACHED))


async def test_a_refresh_replaces_the_answer_even_a_sampled_one(
    backend: EchoBackend, make: Callable[..., Cached], run: Callable[..., Any]
) -> None:
    cached = make(backend)
    for text in ("old", "new"):
        backend.script = Script(texts=[text])
        await run(cached, asks(CacheMode.REFRESH, temperature=0.7))
    replay = await run(cached, asks(CacheMode.ONLY_IF_CACHED, temperature=0.7))
    assert replay[1] == Token("new")
    assert result(await run(cached, asks(temperature=0.7))) is CacheResult.BYPASS


async def test_only_if_cached_says_why_there_is_none(
    backend: EchoBackend, make: Callable[..., Cached], run: Callable[..., Any], wall: Wall
) -> None:
    with pytest.raises(NotCached, match="`m`: no stored answer"):
        await run(make(backend), asks(CacheMode.ONLY_IF_CACHED))
    with pytest.raises(NotCached, match="`m`: cache: off for this model"):
        await run(make(backend, mode="off"), asks(CacheMode.ONLY_IF_CACHED))
    assert not backend.calls
    await run(make(backend), asks())
    wall.now += 60
    with pytest.raises(NotCached, match="`m`: the stored answer is too old"):
        await run(make(backend), asks(CacheMode.ONLY_IF_CACHED, max_age_s=59))


async def test_sampled_answers_are_not_kept_and_it_says_why(
    backend: EchoBackend, make: Callable[..., Cached], run: Callable[..., Any]
) -> None:
    cached = make(backend)
    for _ in range(2):
        events = await run(cached, asks(temperature=0.7))
        assert result(events) is CacheResult.BYPASS
        assert events[0].route.reasons == ("cache: not used, sampling at temperature 0.7 is not deterministic",)
    assert len(backend.calls) == 2


async def test_too_old_an_answer_is_a_miss(
    backend: EchoBackend, make: Callable[..., Cached], run: Callable[..., Any], wall: Wall
) -> None:
    cached = make(backend)
    await run(cached, asks())
    wall.now += 60
    assert result(await run(cached, asks(max_age_s=61))) is CacheResult.HIT
    assert result(await run(cached, asks(max_age_s=59))) is CacheResult.MISS
    assert result(await run(cached, asks(max_age_s=1))) is CacheResult.HIT  # the miss has renewed it


@pytest.mark.parametrize("after", [1, 2, 3])
async def test_a_failed_answer_is_not_kept(
    backend: EchoBackend, make: Callable[..., Cached], run: Callable[..., Any], after: int
) -> None:
    cached = make(backend)
    backend.script = Script(error=WorkerDied("gone"), error_after=after)
    with pytest.raises(WorkerDied):
        await run(cached, asks())
    backend.script = Script()
    assert result(await run(cached, asks())) is CacheResult.MISS


@pytest.mark.parametrize("most", [1, 2, 3])
async def test_an_abandoned_answer_is_not_kept(
    backend: EchoBackend, make: Callable[..., Cached], run: Callable[..., Any], take: Callable[..., Any], most: int
) -> None:
    cached = make(backend)
    backend.script = Script(gate=asyncio.Event(), gate_after=most)
    await take(cached, asks(), most=most)
    assert (backend.open, backend.closed_early) == (0, 1)
    backend.script = Script()
    assert result(await run(cached, asks())) is CacheResult.MISS


async def test_an_answer_whose_end_was_taken_is_kept_though_nobody_asked_for_more(
    backend: EchoBackend, make: Callable[..., Cached], run: Callable[..., Any], take: Callable[..., Any]
) -> None:
    cached = make(backend)
    assert isinstance((await take(cached, asks(), most=5))[-1], Finished)
    assert result(await run(cached, asks())) is CacheResult.HIT


async def test_a_cancelled_call_keeps_nothing(
    backend: EchoBackend, make: Callable[..., Cached], run: Callable[..., Any], until: Callable[..., Any]
) -> None:
    backend.script = Script(gate=asyncio.Event(), gate_after=2)
    cached = make(backend)
    task = asyncio.create_task(run(cached, asks()))
    await until(lambda: backend.open)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert backend.open == 0
    backend.script = Script()
    assert result(await run(cached, asks())) is CacheResult.MISS


@pytest.mark.parametrize(
    ("reason", "second"),
    [(FinishReason.CONTENT_FILTER, CacheResult.MISS), (FinishReason.UNSPECIFIED, CacheResult.HIT)],
)
async def test_a_filtered_answer_is_not_kept_and_one_that_gives_no_reason_is(
    backend: EchoBackend,
    make: Callable[..., Cached],
    run: Callable[..., Any],
    reason: FinishReason,
    second: CacheResult,
) -> None:
    backend.script = Script(reason=reason)
    cached = make(backend, mode="always")
    assert result(await run(cached, asks())) is CacheResult.MISS
    assert result(await run(cached, asks())) is second


async def test_a_peer_is_told_the_user_and_so_users_share_no_answer(
    backend: EchoBackend, make: Callable[..., Cached], run: Callable[..., Any]
) -> None:
    ann, ben = (asks(routing=RoutingOptions(user=name)) for name in ("ann", "ben"))
    remote = make(backend, local=False)
    results = [result(await run(remote, call)) for call in (ann, ben, ann)]
    assert results == [CacheResult.MISS, CacheResult.MISS, CacheResult.HIT]
    local = make(backend)
    assert [result(await run(local, call)) for call in (ann, ben)] == [CacheResult.MISS, CacheResult.HIT]


async def test_an_answer_that_is_too_large_is_not_kept(
    backend: EchoBackend,
    make: Callable[..., Cached],
    run: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    registry: CollectorRegistry,
) -> None:
    monkeypatch.setattr(keeping, "MAX_ANSWER_BYTES", 1000)
    cached = make(backend)
    for texts in (["x" * 1001], ["x"] * 1001):
        backend.script = Script(texts=texts)
        for _ in range(2):
            assert result(await run(cached, asks())) is CacheResult.MISS
    refused = registry.get_sample_value("polyroute_cache_stores_total", {"model": "m", "result": "refused"})
    assert refused == 4


async def test_another_version_does_not_answer_for_this_one(
    backend: EchoBackend, make: Callable[..., Cached], run: Callable[..., Any]
) -> None:
    cached = make(backend)
    await run(cached, asks())
    backend.version = "echo-2"
    events = await run(cached, asks())
    assert (result(events), events[0].route.version) == (CacheResult.MISS, "echo-2")
    backend.version = "echo-1"
    assert result(await run(cached, asks())) is CacheResult.HIT


async def test_an_answer_is_kept_under_the_version_that_gave_it(
    backend: EchoBackend, make: Callable[..., Cached], run: Callable[..., Any]
) -> None:
    """The model was replaced between the lookup and the answer."""
    old = Facts(ModelState.WARM, version="echo-0")
    cached = make(backend)
    cached._shelf = Shelf("m", True, "f", CacheConfig(), lambda: old)
    await run(cached, asks())
    assert result(await run(cached, asks())) is CacheResult.MISS
    assert result(await run(make(backend), asks())) is CacheResult.HIT


async def test_an_unknown_version_is_not_cached(
    backend: EchoBackend, make: Callable[..., Cached], run: Callable[..., Any]
) -> None:
    backend.version = ""
    events = await run(make(backend), asks())
    assert result(events) is CacheResult.BYPASS
    assert events[0].route.reasons == ("cache: not used, the model's version is not known now",)


async def test_a_cache_that_fails_fails_no_call(
    backend: EchoBackend,
    make: Callable[..., Cached],
    run: Callable[..., Any],
    answers: Answers,
    registry: CollectorRegistry,
) -> None:
    await answers.close()
    cached = make(backend, tiers=["disk"])
    for _ in range(2):
        events = await run(cached, asks())
        assert (result(events), "".join(e.text for e in events if isinstance(e, Token))) == (CacheResult.MISS, "a b c")
    assert registry.get_sample_value("polyroute_cache_lookups_total", {"model": "m", "result": "error"}) == 2


async def test_an_answer_is_kept_where_the_model_says(
    backend: EchoBackend, make: Callable[..., Cached], run: Callable[..., Any], answers: Answers
) -> None:
    await run(make(backend, tiers=["memory"]), asks())
    memory, disk = (await answers.stats()).tiers
    assert (memory.entries, disk.entries) == (1, 0)
    assert result(await run(make(backend, tiers=["disk"]), asks())) is CacheResult.MISS
    assert result(await run(make(backend, tiers=["memory"]), asks())) is CacheResult.HIT


async def test_it_counts_what_it_saved(
    backend: EchoBackend, make: Callable[..., Cached], run: Callable[..., Any], registry: CollectorRegistry
) -> None:
    cached = make(backend)
    for _ in range(3):
        await run(cached, asks())
    stats = cached.ledger.stats
    assert (stats.model, stats.hits, stats.misses, stats.stores, stats.saved_tokens) == ("m", 2, 1, 1, 6)
    assert stats.saved_s >= 0
    counted = {
        r: registry.get_sample_value("polyroute_cache_lookups_total", {"model": "m", "result": r})
        for r in ("hit", "miss")
    }
    assert counted == {"hit": 2, "miss": 1}
    assert registry.get_sample_value("polyroute_cache_stores_total", {"model": "m", "result": "stored"}) == 1
