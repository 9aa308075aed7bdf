"""Each call of an experiment leaves one record, and the record says what came of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import pytest

from polyroute.backends.echo import EchoBackend, Script
from polyroute.core.backend import ModelState
from polyroute.core.call import Call
from polyroute.core.errors import PeerFailed, PolyrouteError
from polyroute.core.event import Whole
from polyroute.core.request import CacheMode, CacheOptions, Message, Request, RoutingOptions, Sampling
from polyroute.routing.experiments.records import CallRecord
from polyroute.routing.gateway import Gateway
from polyroute.routing.streams import generator

CONFIG: dict[str, Any] = {
    "default_model": "chat",
    "models": [
        {"id": name, "type": "remote", "base_url": f"http://{name}:1", "first_token_timeout": 60}
        for name in ("one", "two", "three")
    ],
    "routes": [
        {
            "id": "chat",
            "variants": [{"name": "v1", "model": "one"}, {"name": "v2", "model": "two", "weight": 0}],
            "fallback": ["three"],
        }
    ],
}
BYPASS = CacheOptions(CacheMode.BYPASS)


class Kept:
    """A recorder that keeps what it is told."""

    def __init__(self) -> None:
        self.records: list[CallRecord] = []

    def recorded(self, record: CallRecord) -> None:
        self.records.append(record)


@pytest.fixture
def backends() -> dict[str, EchoBackend]:
    return {name: EchoBackend(name, version=f"{name}-v") for name in ("one", "two", "three")}


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def gateway(build: Callable[..., Gateway], backends: dict[str, EchoBackend], kept: Kept) -> Gateway:
    return build(CONFIG, backends, kept)


def asks(model: str = "chat", deadline: float | None = None, cache: CacheOptions = BYPASS, **routing: Any) -> Call:
    request = Request(model=model, prompt="a b", cache=cache, routing=RoutingOptions(user="ada", **routing))
    return Call(request, "r1", deadline=deadline)


async def test_an_answer(gateway: Gateway, kept: Kept, take: Callable[..., Any]) -> None:
    route = (await take(gateway.generate, asks()))[0].route
    (record,) = kept.records
    assert (record.request_id, record.route, record.variant) == ("r1", "chat", "v1")
    assert (record.model, record.version, record.answered_by) == ("one", "one-v", "one")
    assert (record.sticky_by, record.hash_point, record.probability) == ("user", route.hash_point, 1.0)
    assert record.shares == (("v1", 1.0), ("v2", 0.0))
    assert (record.outcome, record.fault, record.cache, record.finish_reason) == ("ok", "", "BYPASS", "STOP")
    assert record.completion_tokens == 2
    assert 0 < record.first_token_s <= record.total_s
    assert record.assigned
    assert record.evidence
    assert (record.prompt, record.answer) == ("", "")


async def test_a_model_called_by_its_own_name_takes_part_in_nothing(
    gateway: Gateway, kept: Kept, take: Callable[..., Any]
) -> None:
    await take(gateway.generate, asks("one"))
    assert not kept.records


async def test_an_answer_of_a_fallback_is_the_variants_failure(
    gateway: Gateway, kept: Kept, backends: dict[str, EchoBackend], take: Callable[..., Any]
) -> None:
    backends["one"].script = Script(error=PeerFailed("`one`: no"))
    await take(gateway.generate, asks())
    (record,) = kept.records
    assert (record.outcome, record.fault, record.answered_by) == ("ok", "PEER_FAILED", "three")
    assert (record.model, record.version) == ("one", "one-v")
    assert record.evidence
    assert record.failed


async def test_a_variant_without_replicas_has_failed_though_it_was_not_asked(
    gateway: Gateway, kept: Kept, backends: dict[str, EchoBackend], take: Callable[..., Any]
) -> None:
    backends["one"].state = ModelState.FAILED
    await take(gateway.generate, asks())
    assert (kept.records[0].outcome, kept.records[0].fault) == ("ok", "NO_HEALTHY_REPLICA")


async def test_a_call_that_nobody_answers(
    gateway: Gateway, kept: Kept, backends: dict[str, EchoBackend], take: Callable[..., Any]
) -> None:
    for backend in backends.values():
        backend.script = Script(error=PeerFailed("no"))
    with pytest.raises(PolyrouteError):
        await take(gateway.generate, asks())
    (record,) = kept.records
    assert (record.outcome, record.fault, record.answered_by) == ("PEER_FAILED", "PEER_FAILED", "")


async def test_an_answer_that_breaks_off(
    gateway: Gateway, kept: Kept, backends: dict[str, EchoBackend], take: Callable[..., Any]
) -> None:
    backends["one"].script = Script(error=PeerFailed("no"), error_after=1)
    with pytest.raises(PolyrouteError):
        await take(gateway.generate, asks())
    (record,) = kept.records
    assert (record.outcome, record.fault, record.answered_by) == ("PEER_FAILED", "PEER_FAILED", "one")


async def test_a_caller_that_leaves_is_no_evidence(gateway: Gateway, kept: Kept, take: Callable[..., Any]) -> None:
    await take(gateway.generate, asks(), 1)
    (record,) = kept.records
    assert (record.outcome, record.evidence, record.assigned) == ("CANCELLED", False, True)


async def test_a_caller_that_is_cancelled_before_its_answer_begins_leaves_a_record(
    gateway: Gateway, kept: Kept, backends: dict[str, EchoBackend], take: Callable[..., Any], until: Callable[..., Any]
) -> None:
    backends["one"].script = Script(gate=asyncio.Event())
    task = asyncio.create_task(take(gateway.generate, asks()))
    await until(lambda: backends["one"].calls)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [(r.outcome, r.evidence) for r in kept.records] == [("CANCELLED", False)]


async def test_a_deadline_of_the_callers_own_is_no_evidence(
    gateway: Gateway, kept: Kept, backends: dict[str, EchoBackend], take: Callable[..., Any]
) -> None:
    backends["one"].script = Script(gate=asyncio.Event())
    with pytest.raises(PolyrouteError):
        await take(gateway.generate, asks(deadline=time.monotonic() + 0.01))
    (record,) = kept.records
    assert (record.outcome, record.own_deadline, record.evidence) == ("DEADLINE_EXCEEDED", True, False)


async def test_a_bug_leaves_a_record_too(
    gateway: Gateway, kept: Kept, backends: dict[str, EchoBackend], take: Callable[..., Any]
) -> None:
    backends["one"].script = Script(error=RuntimeError("bug"))
    with pytest.raises(PolyrouteError):
        await take(gateway.generate, asks())
    assert [(r.outcome, r.fault) for r in kept.records] == [("INTERNAL", "INTERNAL")]


async def test_an_answer_from_the_cache_is_no_evidence(gateway: Gateway, kept: Kept, take: Callable[..., Any]) -> None:
    request = Request(model="chat", prompt="a b", sampling=Sampling(temperature=0), routing=RoutingOptions(user="ada"))
    for _ in range(2):
        await take(gateway.generate, Call(request, "r1"))
    assert [(r.cache, r.evidence) for r in kept.records] == [("MISS", True), ("HIT", False)]
    assert [(r.outcome, r.finish_reason, r.completion_tokens) for r in kept.records] == [("ok", "STOP", 2)] * 2
    async with aclosing(generator(gateway.generate(Call(request, "r2")))) as events:
        assert isinstance(await anext(events), Whole)
    assert (kept.records[-1].cache, kept.records[-1].outcome) == ("HIT", "CANCELLED"), "it was not taken to its end"


async def test_a_pinned_call_was_not_assigned(gateway: Gateway, kept: Kept, take: Callable[..., Any]) -> None:
    await take(gateway.generate, asks(variant="v2"))
    (record,) = kept.records
    assert (record.variant, record.assigned, record.probability) == ("v2", False, None)


async def test_content_is_kept_where_the_route_says_so(
    build: Callable[..., Gateway], backends: dict[str, EchoBackend], kept: Kept, take: Callable[..., Any]
) -> None:
    routes = [CONFIG["routes"][0] | {"record_content": True}]
    gateway = build(CONFIG | {"routes": routes}, backends, kept)
    await take(gateway.generate, asks())
    said = Request(model="chat", messages=(Message("user", "x y"),), cache=BYPASS)
    await take(gateway.generate, Call(said, "r2"))
    await take(gateway.generate, Call(Request(model="chat", prompt="a\0 \ud800", cache=BYPASS), "r3"))
    assert [(r.prompt, r.answer) for r in kept.records] == [
        ("a b", "a b"),
        ('[{"role":"user","content":"x y"}]', "x y"),
        ("a\ufffd ?", "a\ufffd ?"),  # what no database can hold is replaced
    ]
