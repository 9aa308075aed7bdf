"""A route whose shares follow what is learnt, on a whole server."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import grpc

from polyroute.backends.echo import EchoBackend, Script
from polyroute.core.config import RouteConfig
from polyroute.core.errors import PeerFailed
from polyroute.v1 import inference_pb2, models_pb2
from tests.integration.grpc_serving import WAIT_S, Serving, serving, settings_for

ROUTE = RouteConfig.model_validate(
    {
        "id": "r",
        "sticky_by": ["request"],
        "variants": [{"name": "a", "model": "one"}, {"name": "b", "model": "two"}],
        "adaptive": {"floor": "5%", "every": "1s"},
    }
)


async def share(at: Serving, variant: str) -> float:
    model = (await at.models.GetModel(models_pb2.GetModelRequest(model="r"), timeout=WAIT_S)).model
    return next(each.share for each in model.variants if each.name == variant)


async def test_a_variant_that_fails_is_left_with_the_floor(tmp_path: Path) -> None:
    one, two = EchoBackend("one"), EchoBackend("two", script=Script(error=PeerFailed("broken on purpose")))
    chosen = settings_for(one, two, folder=tmp_path, routes=(ROUTE,))
    chosen = replace(chosen, state_url=f"sqlite:///{tmp_path / 'state.db'}")
    async with serving(one, two, folder=tmp_path, settings=chosen) as at:
        assert await share(at, "b") == 0.5
        answered: set[float] = set()
        async with asyncio.timeout(WAIT_S):
            while await share(at, "b") > 0.051:
                request = inference_pb2.GenerateRequest(model="r", prompt="hello")
                try:
                    answer = await at.inference.Generate(request, timeout=WAIT_S)
                except grpc.aio.AioRpcError:
                    continue
                answered.add(answer.route.probability)
        assert min(answered) >= 0.5  # each call tells the probability that its variant had then
    async with serving(one, two, folder=tmp_path, settings=chosen) as at:
        assert await share(at, "b") < 0.06  # and it is known when the server comes back
