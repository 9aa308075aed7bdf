"""What the cache did stands on the span of a call that is sampled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing

from msgspec.structs import replace

from polyroute.backends.echo import EchoBackend
from polyroute.core.call import Call
from polyroute.core.request import Request, Sampling
from polyroute.core.trace import SAMPLED, Span, Trace
from polyroute.routing.layers.cached import Cached
from polyroute.routing.streams import generator

ASKS = Call(Request(prompt="a b c", sampling=Sampling(temperature=0)), "r")


async def told(cached: Cached) -> list[dict[str, object]]:
    """What the events of a call's span say, once it is answered."""
    trace = Trace("a" * 32, "", SAMPLED)
    span = Span("call", "server", trace, lambda _span: None, {})
    async with aclosing(generator(cached(replace(ASKS, trace=trace.under(span))))) as events:
        async for _ in events:
            pass
    assert {event.name for event in span.events} == {"cache"}
    return [dict(event.attributes) for event in span.events]


async def test_a_miss_and_then_a_hit(backend: EchoBackend, layer: Callable[..., Cached]) -> None:
    cached = layer(backend)
    assert await told(cached) == [{"polyroute.cache": "miss"}]
    assert await told(cached) == [{"polyroute.cache": "hit", "polyroute.cache.tier": "memory"}]


async def test_equal_calls_that_share_a_run(backend: EchoBackend, layer: Callable[..., Cached]) -> None:
    cached = layer(backend)
    both = await asyncio.gather(told(cached), told(cached))
    assert sorted(str(one["polyroute.cache"]) for (one,) in both) == ["coalesced", "miss"]
