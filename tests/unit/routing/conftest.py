"""What the tests of the routing room share: a cache, a codec, and a gateway over scripted backends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from polyroute.core.backend import Backend
from polyroute.core.call import Call, Service
from polyroute.core.config import Config
from polyroute.core.event import Event, parts_of
from polyroute.core.request import Request
from polyroute.routing.cache.answers import Answers
from polyroute.routing.cache.codec import StoredAnswer
from polyroute.routing.cache.disk_tier import DiskTier
from polyroute.routing.cache.guarded import GuardedTier
from polyroute.routing.cache.invalidations import Invalidations
from polyroute.routing.cache.memory_tier import MemoryTier
from polyroute.routing.experiments.records import Recorder
from polyroute.routing.experiments.shadow.shadows import Shadows
from polyroute.routing.gateway import Gateway
from polyroute.routing.metrics import Metrics
from polyroute.routing.registry import Snapshot
from polyroute.routing.stack import deploy
from polyroute.routing.streams import generator

MIB = 1024 * 1024


class JsonCodec:
    """Answers as JSON."""

    def encode(self, answer: StoredAnswer) -> bytes:
        return msgspec.json.encode(answer)

    def decode(self, blob: bytes) -> StoredAnswer:
        try:
            return msgspec.json.decode(blob, type=StoredAnswer)
        except msgspec.MsgspecError as error:
            raise ValueError(str(error)) from error


@pytest.fixture
def codec() -> JsonCodec:
    return JsonCodec()


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> Metrics:
    return Metrics(registry, {"m"})


@pytest.fixture
async def answers(tmp_path: Path, codec: JsonCodec) -> AsyncIterator[Answers]:
    """Tiers in memory and in a folder of its own, with limits that no slow machine meets."""
    disk = GuardedTier(DiskTier(tmp_path / "answers", 64 * MIB, get_s=60, put_s=60))
    answers = Answers(MemoryTier(64 * MIB), [disk], Invalidations(), codec)
    yield answers
    await answers.close()


@pytest.fixture
def take() -> Callable[..., Any]:
    """Takes the events of a call, all or the first few, and closes the stream; what came at once is taken apart."""

    async def _take(service: Service, call: Call | None = None, most: int | None = None) -> list[Event]:
        taken: list[Event] = []
        async with aclosing(generator(service(call or Call(Request(prompt="a b c"), "r1")))) as events:
            async for event in events:
                taken.extend(parts_of(event))
                if most is not None and len(taken) >= most:
                    break
        return taken[:most]

    return _take


@pytest.fixture
def until() -> Callable[..., Any]:
    """Lets everything else run until a condition holds."""

    async def _until(holds: Callable[[], object]) -> None:
        while not holds():  # noqa: ASYNC110 - the condition is no event
            await asyncio.sleep(0.001)

    return _until


@pytest.fixture
def build(answers: Answers, metrics: Metrics) -> Callable[..., Gateway]:
    """A gateway over a configuration and the backends of its models, by ID."""

    def _build(
        config: dict[str, Any],
        backends: Mapping[str, Backend],
        recorder: Recorder | None = None,
        shadows: Shadows | None = None,
    ) -> Gateway:
        parsed = Config.model_validate(config)
        deployments = {
            model.id: deploy(model, backends[model.id], answers=answers, metrics=metrics)
            for model in parsed.effective_models
        }
        return Gateway(Snapshot.of(parsed, deployments), answers, metrics, recorder=recorder, shadows=shadows)

    return _build
