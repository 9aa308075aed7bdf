"""Health, reflection, channelz, and what the server tells of its models, on real sockets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ResourceInfo
from grpc_channelz.v1 import channelz_pb2
from grpc_channelz.v1.channelz_pb2_grpc import ChannelzStub
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from polyroute.backends.echo import EchoBackend
from polyroute.core.backend import ModelState
from polyroute.core.config import RouteConfig, VariantConfig
from polyroute.v1 import admin_pb2, models_pb2
from polyroute.v1 import inference_pb2 as pb
from tests.integration.grpc_serving import WAIT_S, Serving, refused, serving

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


async def checked(at: Serving, name: str) -> int:
    return (await at.health.Check(health_pb2.HealthCheckRequest(service=name), timeout=WAIT_S)).status


async def test_health_follows_the_models(tmp_path: Path) -> None:
    main, other = EchoBackend("main", state=ModelState.LOADING), EchoBackend("org/other")
    async with serving(main, other, folder=tmp_path) as at:
        assert await checked(at, "") == NOT_SERVING
        assert await checked(at, "polyroute.v1.InferenceService") == NOT_SERVING
        assert await checked(at, "polyroute.v1.ModelService") == SERVING
        assert await checked(at, "main") == NOT_SERVING
        assert await checked(at, "org/other") == SERVING
        main.state = ModelState.WARM
        assert await checked(at, "") == SERVING
        assert await checked(at, "main") == SERVING

        error = await refused(at.health.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=WAIT_S))
        assert error.code is grpc.StatusCode.NOT_FOUND
        assert error.details[ResourceInfo].resource_name == "nobody"

        listed = (await at.health.List(health_pb2.HealthListRequest(), timeout=WAIT_S)).statuses
        assert {"", "main", "org/other", "polyroute.v1.InferenceService"} <= set(listed)
        assert listed["main"].status == SERVING


async def test_a_watch_tells_every_change_and_waits_for_unknown_names(tmp_path: Path) -> None:
    echo = EchoBackend("m", state=ModelState.LOADING)
    async with serving(echo, folder=tmp_path) as at:
        watch = at.health.Watch(health_pb2.HealthCheckRequest(service="m"), timeout=WAIT_S)
        nobody = at.health.Watch(health_pb2.HealthCheckRequest(service="nobody"), timeout=WAIT_S)
        assert (await watch.read()).status == NOT_SERVING
        assert (await nobody.read()).status == UNKNOWN
        echo.state = ModelState.WARM
        assert (await watch.read()).status == SERVING
        echo.state = ModelState.FAILED
        assert (await watch.read()).status == NOT_SERVING
        assert not nobody.done()


async def reflect(channel: grpc.aio.Channel, version: str, **asked: Any) -> reflection_pb2.ServerReflectionResponse:
    """One question to server reflection, as a client without our help would send it."""
    call = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )(timeout=WAIT_S)
    await call.write(reflection_pb2.ServerReflectionRequest(**asked))
    answer = await call.read()
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert isinstance(answer, reflection_pb2.ServerReflectionResponse)
    return answer


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_describes_every_service_in_both_versions(tmp_path: Path, version: str) -> None:
    both = {"grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection", "grpc.health.v1.Health"}
    async with serving(EchoBackend("m"), folder=tmp_path) as at:
        expected = {
            at.channel: both | {"polyroute.v1.InferenceService", "polyroute.v1.ModelService"},
            at.admin_channel: both | {"polyroute.v1.AdminService", "grpc.channelz.v1.Channelz"},
        }
        for channel, services in expected.items():
            listed = (await reflect(channel, version, list_services="")).list_services_response.service
            assert {service.name for service in listed} == services
            for service in services:
                answer = await reflect(channel, version, file_containing_symbol=service)
                found = [
                    FileDescriptorProto.FromString(raw) for raw in answer.file_descriptor_response.file_descriptor_proto
                ]
                defined = {f"{file.package}.{one.name}" for file in found for one in file.service}
                assert service in defined
                names = {file.name for file in found}
                assert all(dependency in names for file in found for dependency in file.dependency)
        missing = await reflect(at.channel, version, file_containing_symbol="no.Such")
        assert missing.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


async def test_channelz_stands_on_the_admin_address_alone(tmp_path: Path) -> None:
    async with serving(EchoBackend("m"), folder=tmp_path) as at:
        servers = await ChannelzStub(at.admin_channel).GetServers(  # type: ignore[no-untyped-call]
            channelz_pb2.GetServersRequest(start_server_id=0), timeout=WAIT_S
        )
        assert servers.server
        error = await refused(at.channel.unary_unary("/grpc.channelz.v1.Channelz/GetServers")(b"", timeout=WAIT_S))
        assert error.code is grpc.StatusCode.UNIMPLEMENTED


async def test_models_are_listed_in_pages_that_survive_additions(tmp_path: Path) -> None:
    echoes = [EchoBackend(f"org/m{i}") for i in range(5)]
    route = RouteConfig(id="chat", variants=(VariantConfig(name="a", model="org/m1"),), fallback=("org/m2",))
    async with serving(*echoes, folder=tmp_path, routes=(route,)) as at:
        whole = await at.models.ListModels(models_pb2.ListModelsRequest())
        ids = [model.id for model in whole.models]
        assert ids == ["chat", *(f"org/m{i}" for i in range(5))]
        assert whole.next_page_token == ""
        assert whole.default_model == "org/m0"
        assert [model.default for model in whole.models] == [False, True, False, False, False, False]
        assert whole.models[0].type == models_pb2.MODEL_TYPE_ROUTE
        assert [v.model for v in whole.models[0].variants] == ["org/m1"]
        assert list(whole.models[0].fallback) == ["org/m2"]
        assert whole.models[1].state == models_pb2.MODEL_STATE_WARM
        assert [r.name for r in whole.models[1].replicas] == ["echo"]

        seen: list[str] = []
        token = ""
        for _ in range(3):
            page = await at.models.ListModels(models_pb2.ListModelsRequest(page_size=2, page_token=token))
            seen += [model.id for model in page.models]
            token = page.next_page_token
        assert seen == ids
        assert token == ""

        for size in (-1, 1001):
            error = await refused(at.models.ListModels(models_pb2.ListModelsRequest(page_size=size)))
            assert (error.code, error.field) == (grpc.StatusCode.INVALID_ARGUMENT, "page_size")
        for bad in ("x", "é", "YWJj", "////", "YWZ0ZXI6/w=="):
            error = await refused(at.models.ListModels(models_pb2.ListModelsRequest(page_token=bad)))
            assert (error.code, error.field) == (grpc.StatusCode.INVALID_ARGUMENT, "page_token")

        one = (await at.models.GetModel(models_pb2.GetModelRequest(model="org/m3"))).model
        assert one.id == "org/m3"
        assert (await at.models.GetModel(models_pb2.GetModelRequest())).model.default


async def test_a_plan_is_explained_and_not_run(tmp_path: Path) -> None:
    echo = EchoBackend("m")
    async with serving(echo, folder=tmp_path) as at:
        request = models_pb2.ExplainRouteRequest(request=pb.GenerateRequest(prompt="x"))
        plan = await at.models.ExplainRoute(request)
        assert plan.requested == "m"
        assert [(a.deployment, a.model, a.version, a.state) for a in plan.attempts] == [
            ("m", "m", "echo-1", models_pb2.MODEL_STATE_WARM)
        ]
        assert plan.attempts[0].cache
        assert plan.reasons
        assert not echo.calls


async def test_an_operator_loads_and_looks_at_the_cache(tmp_path: Path) -> None:
    echo = EchoBackend("m", state=ModelState.COLD)
    async with serving(echo, folder=tmp_path, cache=None) as at:
        loaded = await at.admin.LoadModel(admin_pb2.LoadModelRequest(model="m", wait=True))
        assert loaded.model.state == models_pb2.MODEL_STATE_WARM
        error = await refused(at.admin.LoadModel(admin_pb2.LoadModelRequest()))
        assert error.field == "model"
        error = await refused(at.admin.UnloadModel(admin_pb2.UnloadModelRequest(model="m", grace=Duration(seconds=-1))))
        assert error.field == "grace"
        error = await refused(at.admin.UnloadModel(admin_pb2.UnloadModelRequest(model="m")))
        assert "remote" in error.message

        stats = await at.admin.GetCacheStats(admin_pb2.GetCacheStatsRequest())
        assert [tier.name for tier in stats.tiers] == ["memory", "disk"]
        assert [model.model for model in stats.models] == ["m"]
        removed = await at.admin.InvalidateCache(admin_pb2.InvalidateCacheRequest())
        assert removed.removed == 0
