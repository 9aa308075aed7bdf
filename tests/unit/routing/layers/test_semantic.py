"""A request that is worded in another way: answered fresh and measured, or served, and never where it must not be."""

from __future__ import annotations

import asyncio
import math
import time
from array import array
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from polyroute.backends.echo import EchoBackend, Script
from polyroute.core.call import Call
from polyroute.core.config import CacheConfig, SemanticConfig
from polyroute.core.embedder import NoEmbedding
from polyroute.core.event import CacheResult, Event, FinishReason, Started, Token
from polyroute.core.request import CacheMode, CacheOptions, Message, Request, ResponseFormat, Sampling, Tool
from polyroute.routing.cache.answers import Answers
from polyroute.routing.cache.shelf import Shelf
from polyroute.routing.cache.wording import difference
from polyroute.routing.layers.cached import Cached
from polyroute.routing.layers.semantic import Semantic
from polyroute.routing.metrics import Metrics

FRANCE, FRENCH, LYON = "What is the capital of France?", "Name the French capital", "Where is Lyon?"
DEGREES = {FRANCE: 0.0, FRENCH: 5.0, LYON: 60.0}
"""The direction of each text's vector; the cosine of 5 degrees is 0.996."""


class Compass:
    """An embedder of texts whose directions are known, on which one may have to wait."""

    def __init__(self) -> None:
        self.degrees = dict(DEGREES)
        self.gate: asyncio.Event | None = None
        self.asked: list[str] = []

    async def embed(self, text: str) -> bytes:
        self.asked.append(text)
        if self.gate is not None:
            await self.gate.wait()
        if text not in self.degrees:
            raise NoEmbedding("it knows no such direction")
        angle = math.radians(self.degrees[text])
        return array("f", [math.cos(angle), math.sin(angle)]).tobytes()

    async def stop(self) -> None:
        raise AssertionError("its owner is somebody else")


def asks(text: str, mode: CacheMode = CacheMode.UNSPECIFIED, **fields: Any) -> Call:
    fields = {"messages": (Message("user", text),), "sampling": Sampling(temperature=0)} | fields
    cache = CacheOptions(mode, fields.pop("max_age_s", None))
    return Call(Request(cache=cache, **fields), "r")


class Tried:
    """The exact cache over the semantic layer over a scripted model."""

    def __init__(
        self, mode: str, answers: Answers, metrics: Metrics, *, cache: dict[str, Any] | None = None, **options: Any
    ) -> None:
        self.backend = EchoBackend("m")
        self.compass = Compass()
        semantic = SemanticConfig(mode=mode, threshold=0.9)  # type: ignore[arg-type]
        shelf = Shelf("m", False, "f", CacheConfig(semantic=semantic, **cache or {}), self.backend.facts)
        self.wall = time.time()
        now = {"wall": lambda: self.wall}
        options.setdefault("patience_s", 60)
        self.layer = Semantic(self.backend.stream, shelf, answers, self.compass, metrics, **now, **options)
        self.service = Cached(self.layer, shelf, answers, metrics, **now)


@pytest.fixture
def tried(answers: Answers, metrics: Metrics) -> Callable[..., Tried]:
    return lambda mode, **options: Tried(mode, answers, metrics, **options)


@pytest.fixture
def told(take: Callable[..., Any]) -> Callable[..., Any]:
    """What the cache did for a call, and the text of its answer; then waits for what was begun behind it."""

    async def _told(at: Tried, call: Call) -> tuple[CacheResult, str]:
        events: list[Event] = await take(at.service, call)
        if at.layer.lore.behind:
            await asyncio.wait(list(at.layer.lore.behind))
        assert isinstance(events[0], Started)
        return events[0].route.cache, "".join(e.text for e in events if isinstance(e, Token))

    return _told


async def test_serving_answers_with_the_answer_of_the_near_request(
    tried: Callable[..., Tried], told: Callable[..., Any], take: Callable[..., Any], registry: CollectorRegistry
) -> None:
    at = tried("serve")
    assert await told(at, asks(FRANCE)) == (CacheResult.MISS, FRANCE)
    first = (await take(at.service, asks(FRANCE)))[0].route
    at.wall += 7
    (started, *_) = events = await take(at.service, asks(FRENCH))
    route = started.route
    assert (route.cache, route.version, route.cache_age_s) == (CacheResult.HIT, "echo-1", 7)
    assert route.cache_key == first.cache_key, "the entry that was served can be named"
    assert "similarity 0.996, threshold 0.9" in route.reasons[-1]
    assert "".join(e.text for e in events if isinstance(e, Token)) == FRANCE
    assert (await told(at, asks(LYON)))[0] is CacheResult.MISS
    assert len(at.backend.calls) == 2
    stats = at.layer.stats()
    assert (stats.lookups, stats.near, stats.served, stats.entries, stats.compared) == (3, 1, 1, 2, 0)
    near = registry.get_sample_value("polyroute_cache_semantic_lookups_total", {"model": "m", "result": "near"})
    assert near == 1


async def test_what_was_served_is_not_kept_as_the_answer_to_the_other_request(
    tried: Callable[..., Tried], told: Callable[..., Any]
) -> None:
    at = tried("serve")
    await told(at, asks(FRANCE))
    await told(at, asks(FRENCH))
    at.compass.degrees.clear()
    assert await told(at, asks(FRENCH)) == (CacheResult.MISS, FRENCH)


async def test_measuring_answers_fresh_and_counts_whether_the_answers_agree(
    tried: Callable[..., Tried], told: Callable[..., Any]
) -> None:
    at = tried("measure")
    at.compass.degrees["Say the capital of France"] = 1.0
    at.backend.script = Script(texts=["Paris is it"])
    await told(at, asks(FRANCE))
    assert await told(at, asks(FRENCH)) == (CacheResult.MISS, "Paris is it")
    at.backend.script = Script(texts=["Paris"])
    await told(at, asks("Say the capital of France"))
    stats = at.layer.stats()
    assert (stats.lookups, stats.near, stats.served, stats.compared, stats.agreed) == (3, 2, 0, 2, 1)
    assert stats.mean_agreement == pytest.approx((1 + 0.5) / 2)


async def test_a_question_turned_round_is_not_served_however_near(
    tried: Callable[..., Tried], told: Callable[..., Any]
) -> None:
    at = tried("serve")
    one, other = "Is A better than B?", "Is B better than A?"
    at.compass.degrees |= {one: 0.0, other: 0.1}
    assert difference(one, other)
    await told(at, asks(one))
    assert await told(at, asks(other)) == (CacheResult.MISS, other)
    assert at.layer.stats().near == 0


@pytest.mark.parametrize(
    "other",
    [
        {"sampling": Sampling(temperature=0, seed=1)},
        {"sampling": Sampling(temperature=0, max_tokens=3)},
        {"messages": (Message("system", "Lie."), Message("user", FRENCH))},
        {"messages": (Message("user", "Hi"), Message("assistant", "Hi"), Message("user", FRENCH))},
        {"messages": (Message("user", FRENCH), Message("assistant", "Hm"))},
        {"stop": ("x",)},
        {"tools": (Tool("t"),)},
        {"response_format": ResponseFormat("choice", ("a", "b"))},
        {"extra": {"k": 1}},
        {"messages": None, "prompt": FRENCH},
    ],
    ids=str,
)
async def test_all_but_the_words_must_be_equal(
    tried: Callable[..., Tried], told: Callable[..., Any], other: dict[str, Any]
) -> None:
    at = tried("serve")
    await told(at, asks(FRANCE))
    assert (await told(at, asks(FRENCH, **other)))[0] is CacheResult.MISS
    assert at.layer.stats().served == 0


async def test_another_version_and_another_end_user_are_apart(
    tried: Callable[..., Tried], told: Callable[..., Any]
) -> None:
    at = tried("serve")
    await told(at, asks(FRANCE))
    call = asks(FRENCH)
    someone = replace(call, request=replace(call.request, routing=replace(call.request.routing, user="u")))
    assert (await told(at, someone))[0] is CacheResult.MISS
    at.backend.version = "echo-2"
    assert (await told(at, asks(FRENCH)))[0] is CacheResult.MISS


@pytest.mark.parametrize("mode", [CacheMode.BYPASS, CacheMode.REFRESH])
async def test_a_request_that_wants_a_fresh_answer_gets_one(
    tried: Callable[..., Tried], told: Callable[..., Any], mode: CacheMode
) -> None:
    at = tried("serve")
    await told(at, asks(FRANCE))
    assert (await told(at, asks(FRENCH, mode)))[1] == FRENCH
    assert at.layer.stats().lookups == 1
    assert (FRENCH in at.compass.asked) == (mode is CacheMode.REFRESH), "a refreshed answer is known afterwards"


async def test_a_stored_answer_that_is_too_old_or_invalidated_is_not_served(
    tried: Callable[..., Tried], told: Callable[..., Any], answers: Answers
) -> None:
    at = tried("serve")
    await told(at, asks(FRANCE))
    at.wall += 60
    assert (await told(at, asks(FRENCH, max_age_s=59)))[0] is CacheResult.MISS
    await answers.invalidate("m")
    at.compass.degrees["The capital of France is?"] = 1.0
    assert (await told(at, asks("The capital of France is?")))[0] is CacheResult.MISS


async def test_a_stale_answer_is_served_to_no_other_request_and_is_renewed_by_a_fresh_one(
    tried: Callable[..., Tried], told: Callable[..., Any], until: Callable[..., Any]
) -> None:
    at = tried("serve", cache={"ttl": 60, "stale_while_revalidate": 60})
    await told(at, asks(FRANCE))
    at.wall += 61
    assert (await told(at, asks(FRENCH)))[0] is CacheResult.MISS
    assert (await told(at, asks(FRANCE)))[0] is CacheResult.HIT
    await until(lambda: not at.service.ledger.refreshing)
    assert [call.request.messages[-1].content for call in at.backend.calls] == [FRANCE, FRENCH, FRANCE]
    assert at.layer.stats().served == 0
    await at.service.close()


async def test_an_answer_that_was_not_kept_is_not_served(tried: Callable[..., Tried], told: Callable[..., Any]) -> None:
    at = tried("serve")
    at.backend.script = Script(texts=["no"], reason=FinishReason.CONTENT_FILTER)
    await told(at, asks(FRANCE))
    at.backend.script = Script()
    assert (await told(at, asks(FRENCH)))[0] is CacheResult.MISS
    assert at.layer.stats().entries == 1, "what cannot be served is known no more"


async def test_an_embedder_that_is_down_or_slow_is_left_out_within_a_bound(
    tried: Callable[..., Tried], told: Callable[..., Any]
) -> None:
    at = tried("serve", patience_s=0.01)
    assert (await told(at, asks("no direction")))[0] is CacheResult.MISS
    at.compass.gate = asyncio.Event()
    assert (await told(at, asks(FRANCE)))[0] is CacheResult.MISS
    stats = at.layer.stats()
    assert (stats.skipped, stats.lookups, stats.entries) == (2, 0, 0)


async def test_work_behind_calls_is_bounded_and_holds_up_none(
    tried: Callable[..., Tried], take: Callable[..., Any], until: Callable[..., Any]
) -> None:
    at = tried("measure")
    at.compass.gate = asyncio.Event()
    for number in range(70):
        at.compass.degrees[f"question {number}"] = number
        await take(at.service, asks(f"question {number}"))
    assert len(at.layer.lore.behind) == 64
    assert at.layer.stats().skipped == 6
    at.compass.gate.set()
    await until(lambda: not at.layer.lore.behind)
    assert at.layer.stats().entries == 64


async def test_what_it_knows_goes_on_across_reloads_unless_the_vectors_are_others(
    tried: Callable[..., Tried], told: Callable[..., Any]
) -> None:
    at = tried("measure")
    await told(at, asks(FRANCE))
    later = tried("serve", before=at.layer.lore)
    assert (await told(later, asks(FRENCH)))[0] is CacheResult.HIT
    at.layer.lore.embedder = "another"
    assert tried("serve", before=at.layer.lore).layer.stats().entries == 0
