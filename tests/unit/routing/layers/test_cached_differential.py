"""With the cache and without it, answers are the same: whatever is asked, how often, at once or in turn, and when."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import fields, replace
from prometheus_client import CollectorRegistry

from polyroute.backends.echo import EchoBackend, Script
from polyroute.core.call import Call
from polyroute.core.config import CacheConfig
from polyroute.core.errors import NotCached
from polyroute.core.event import Finished, FinishReason, Started, Token
from polyroute.core.request import (
    CacheMode,
    CacheOptions,
    Message,
    Request,
    ResponseFormat,
    RoutingOptions,
    Sampling,
    Tool,
)
from polyroute.routing.cache.answers import Answers
from polyroute.routing.cache.invalidations import Invalidations
from polyroute.routing.cache.memory_tier import MemoryTier
from polyroute.routing.cache.shelf import Shelf
from polyroute.routing.layers.cached import Cached
from polyroute.routing.metrics import Metrics
from polyroute.routing.streams import generator
from tests.clock import Clock
from tests.unit.routing.conftest import JsonCodec

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([0.5, 1.0, -0.0]) | st.sampled_from(["", "a"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=4,
)
FEW = st.dictionaries(st.sampled_from("ab"), JSON, max_size=2)
SAMPLING = st.builds(
    Sampling,
    max_tokens=st.none() | st.integers(1, 3),
    temperature=st.sampled_from([0, 0.0, None, 0.7]),
    top_p=st.sampled_from([None, 1, 1.0, 0.5]),
    seed=st.sampled_from([None, 0, 1]),
    logprobs=st.sampled_from([None, 0, 2]),
)
MESSAGES = st.lists(
    st.builds(Message, role=st.sampled_from(["user", "system"]), content=st.sampled_from("ab")), min_size=1, max_size=2
).map(tuple)
MODES = [*[CacheMode.UNSPECIFIED] * 6, *CacheMode]
REQUESTS = st.builds(
    Request,
    messages=MESSAGES,
    sampling=SAMPLING,
    stop=st.lists(st.sampled_from("ab"), max_size=2).map(tuple),
    response_format=st.none() | st.builds(ResponseFormat, st.just("choice"), st.sampled_from([("a",), ("a", "b")])),
    tools=st.lists(st.builds(Tool, name=st.just("f"), parameters=FEW), max_size=1).map(tuple),
    extra=FEW,
    routing=st.builds(RoutingOptions, user=st.sampled_from(["", "ann"])),
    labels=st.dictionaries(st.just("team"), st.sampled_from("ab"), max_size=1),
    cache=st.builds(CacheOptions, mode=st.sampled_from(MODES), max_age_s=st.sampled_from([None, None, 0, 50])),
)


UNTOLD = ("model", "request_id", "routing", "cache", "labels")
"""What this model is not told."""


CHANGED = ("messages", "sampling", "stop", "response_format", "tools", "extra", "routing", "routing", "cache")


@dataclass(frozen=True)
class Step:
    """Calls that are made at once, of which some leave early, after time has passed and the model may have changed.

    A request is one of few, but for one field, which is another one's: so that most differ by little or nothing.
    """

    requests: list[tuple[int, int, str]]
    leave: list[bool]
    passes_s: float
    version: str
    invalidate: bool


STEPS = st.builds(
    Step,
    requests=st.lists(
        st.tuples(st.integers(0, 1), st.integers(0, 1), st.sampled_from(CHANGED)),
        min_size=1,
        max_size=4,
    ),
    leave=st.lists(st.booleans(), min_size=4, max_size=4),
    passes_s=st.sampled_from([0, 0, 40, 200]),
    version=st.sampled_from(["v1", "v1", "v2"]),
    invalidate=st.sampled_from([False, False, False, True]),
)


def told(value: Any) -> Any:
    """What a model is told, in which 1 and 1.0 are the same number."""
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, dict):
        return sorted((key, told(item)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return [told(item) for item in value]
    if isinstance(value, Struct):
        return [told(getattr(value, field.name)) for field in fields(value)]
    return value


def answer_to(request: Request, version: str, user: str) -> list[str]:
    """What the model answers: as different as two requests are."""
    heard = [told(getattr(request, field.name)) for field in fields(Request) if field.name not in UNTOLD]
    digest = hashlib.sha256(repr((heard, version, user)).encode()).hexdigest()
    return [digest[i : i + 8] for i in range(0, 8 * (1 + int(digest[0], 16) % 4), 8)]


@settings(max_examples=150, deadline=None)
@given(
    few=st.lists(REQUESTS, min_size=2, max_size=2),
    steps=st.lists(STEPS, min_size=1, max_size=8),
    mode=st.sampled_from(["deterministic", "always"]),
    local=st.booleans(),
    stale=st.booleans(),
    coalesce=st.booleans(),
)
def test_answers_never_differ(
    few: list[Request], steps: list[Step], mode: Any, local: bool, stale: bool, coalesce: bool
) -> None:
    """The model is a function of what it is told."""
    asyncio.run(scene(few, steps, mode=mode, local=local, stale=stale, coalesce=coalesce))


async def scene(few: list[Request], steps: list[Step], *, mode: Any, local: bool, stale: bool, coalesce: bool) -> None:
    clock, backend = Clock(), EchoBackend("m")
    user_of = (lambda request: "") if local else (lambda request: request.routing.user)
    backend.script = lambda call: Script(
        texts=answer_to(call.request, backend.version, user_of(call.request)),
        reason=FinishReason.STOP,
        pause=lambda _: asyncio.sleep(0),
    )
    answers = Answers(MemoryTier(2**22, clock=clock), [], Invalidations(), JsonCodec(), wall=clock)
    times: dict[str, Any] = {"ttl": 100, **({"stale_while_revalidate": 150} if stale else {})}
    config = CacheConfig(mode=mode, coalesce=coalesce, **times)
    shelf = Shelf("m", local, "f", config, backend.facts)
    cached = Cached(backend.stream, shelf, answers, Metrics(CollectorRegistry(), {"m"}), wall=clock)
    for step in steps:
        clock.now += step.passes_s
        await cached.ledger.flights.close()  # what an earlier model was asked ends with it
        backend.version = step.version
        if step.invalidate:
            await answers.invalidate("m")
        requests = [replace(few[i], **{name: getattr(few[j], name)}) for i, j, name in step.requests]
        await asyncio.gather(
            *(
                one(cached, Call(request, "r"), step.version, user_of(request), most=2 if leaves else None)
                for request, leaves in zip(requests, step.leave, strict=False)
            )
        )
    await cached.close()
    assert backend.open == 0


async def one(cached: Cached, call: Call, version: str, user: str, most: int | None) -> None:
    expected = answer_to(call.request, version, user)[: call.request.sampling.max_tokens]
    text: list[str] = []
    end = None
    try:
        async with aclosing(generator(cached(call))) as events:
            async for event in events:
                if isinstance(event, Started):
                    assert event.route.version == version
                elif isinstance(event, Token):
                    text.append(event.text)
                    if len(text) == most:
                        break
                else:
                    end = event
    except NotCached:
        assert call.request.cache.mode is CacheMode.ONLY_IF_CACHED
        return
    if isinstance(end, Finished):
        assert (text, end.usage.completion_tokens) == (expected, len(expected))
    else:
        assert text == expected[: len(text)]
