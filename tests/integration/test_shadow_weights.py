"""The same weights twice, sampled by seed or greedily: no pair of a call and its copy differs."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import grpc.aio

from polyroute.backends.echo import EchoBackend
from polyroute.backends.local.backend import LocalBackend
from polyroute.backends.local.cores import Cores
from polyroute.core.config import CacheConfig, Config, LocalConfig, RouteConfig
from polyroute.routing.experiments.database import default_url
from polyroute.server.app import Server
from polyroute.v1 import admin_pb2
from polyroute.v1 import inference_pb2 as pb
from polyroute.v1.admin_pb2_grpc import AdminServiceStub
from polyroute.v1.inference_pb2_grpc import InferenceServiceStub
from tests.integration.grpc_serving import WAIT_S, settings_for
from tests.tiny import save

CALLS = 12
MOST_TOKENS = 24


def sampled(number: int) -> pb.GenerateRequest:
    """Every third call is greedy, the others have a temperature and a seed."""
    request = pb.GenerateRequest(model="chat", prompt=f"Say {number} of them", max_tokens=MOST_TOKENS)
    request.temperature = 0.0 if number % 3 == 0 else 1.0
    if number % 3:
        request.seed = number
    return request


async def test_equal_weights_and_seeds_give_equal_answers(tmp_path: Path) -> None:
    folder = save("llama", tmp_path / "model")
    options = {"type": "local", "source": str(folder), "device": "cpu", "kv_cache_memory": "16MiB"}
    configs = {name: LocalConfig.model_validate({"id": name, **options}) for name in ("stable", "shade")}
    cores = Cores(2)
    backends = {name: LocalBackend(config, cache_dir=tmp_path, cores=cores) for name, config in configs.items()}
    shadow = {"model": "shade", "max_concurrency": 8, "max_queue": CALLS}
    route = RouteConfig.model_validate({"id": "chat", "model": "stable", "shadow": [shadow]})
    whole = Config(default_model="chat", models=tuple(configs.values()), routes=(route,), cache=CacheConfig(mode="off"))
    settings = replace(
        settings_for(EchoBackend("stable"), folder=tmp_path), config=whole, state_url=default_url(tmp_path)
    )
    async with (
        Server(settings, environ={}, backends=backends) as server,
        grpc.aio.insecure_channel(str(server.grpc_address)) as channel,
        grpc.aio.insecure_channel(str(server.admin_address)) as admin_channel,
    ):
        for backend in backends.values():
            await asyncio.wait_for(backend.load(), WAIT_S)
        inference, admin = InferenceServiceStub(channel), AdminServiceStub(admin_channel)
        answers = await asyncio.gather(*(inference.Generate(sampled(n), timeout=WAIT_S) for n in range(CALLS)))
        assert len({answer.text for answer in answers}) > CALLS // 2, "the answers say something"
        asked = admin_pb2.GetExperimentReportRequest(route="chat")
        async with asyncio.timeout(WAIT_S):
            while True:
                report = await admin.GetExperimentReport(asked, timeout=WAIT_S)
                if report.shadows and report.shadows[0].pairs == CALLS:
                    break
    (found,) = report.shadows
    assert (found.exact_matches, found.mean_edit_distance, dict(found.missing)) == (CALLS, 0.0, {})
    assert (found.figures["length_ratio"]["value"], found.figures["same_finish"]["value"]) == (1.0, 1.0)
