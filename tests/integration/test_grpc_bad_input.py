"""Every kind of bad input over gRPC: its row of the error table, the field and the limit; the next caller is served."""

from __future__ import annotations

import gc
import math
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, ResourceInfo

from polyroute.backends.echo import EchoBackend
from polyroute.core.config import LimitsConfig
from polyroute.server.rpc.asked import Asked
from polyroute.v1 import admin_pb2, inference_pb2, models_pb2
from polyroute.v1 import inference_pb2 as pb
from tests.integration.grpc_serving import WAIT_S, refused, refused_stream, serving, until

USER = pb.Message(role="user", content="hello")


def messages(*listed: pb.Message) -> pb.MessageList:
    return pb.MessageList(messages=listed)


def struct(**fields: Any) -> Struct:
    made = Struct()
    made.update(fields)
    return made


BAD: list[tuple[str, pb.GenerateRequest, str, str]] = [
    # what is wrong, request, field, part of the message
    ("nothing", pb.GenerateRequest(), "prompt", "give prompt or messages"),
    ("empty prompt", pb.GenerateRequest(prompt=""), "prompt", "empty"),
    ("empty messages", pb.GenerateRequest(messages=messages()), "messages", "empty"),
    ("role", pb.GenerateRequest(messages=messages(pb.Message(role="wizard"))), "messages[0].role", "wizard"),
    ("many messages", pb.GenerateRequest(messages=messages(*[USER] * 100_000)), "messages", "limit 4096"),
    ("long prompt", pb.GenerateRequest(prompt="x" * 10_000_000), "prompt", "limit 4194304"),
    (
        "long messages",
        pb.GenerateRequest(messages=messages(pb.Message(role="user", content="é" * 5_000_000))),
        "messages",
        "10000000 bytes",
    ),
    ("NaN", pb.GenerateRequest(prompt="x", temperature=math.nan), "temperature", "nan"),
    ("infinite", pb.GenerateRequest(prompt="x", temperature=math.inf), "temperature", "100"),
    ("negative", pb.GenerateRequest(prompt="x", temperature=-1), "temperature", "-1"),
    ("no tokens", pb.GenerateRequest(prompt="x", max_tokens=0), "max_tokens", "from 1"),
    ("negative tokens", pb.GenerateRequest(prompt="x", max_tokens=-5), "max_tokens", "-5"),
    ("absurd tokens", pb.GenerateRequest(prompt="x", max_tokens=2**31 - 1), "max_tokens", "1048576"),
    ("top_p", pb.GenerateRequest(prompt="x", top_p=1.5), "top_p", "1.5"),
    ("top_p zero", pb.GenerateRequest(prompt="x", top_p=0), "top_p", "above 0"),
    ("top_k", pb.GenerateRequest(prompt="x", top_k=-2), "top_k", "-2"),
    ("min_p", pb.GenerateRequest(prompt="x", min_p=math.nan), "min_p", "nan"),
    ("repetition", pb.GenerateRequest(prompt="x", repetition_penalty=0), "repetition_penalty", "above 0"),
    ("presence", pb.GenerateRequest(prompt="x", presence_penalty=3), "presence_penalty", "-2"),
    ("frequency", pb.GenerateRequest(prompt="x", frequency_penalty=-math.inf), "frequency_penalty", "-2"),
    ("logprobs", pb.GenerateRequest(prompt="x", logprobs=21), "logprobs", "20"),
    ("17 stops", pb.GenerateRequest(prompt="x", stop=["s"] * 17), "stop", "17 stop strings, limit 16"),
    ("empty stop", pb.GenerateRequest(prompt="x", stop=["a", ""]), "stop[1]", "empty"),
    ("newline in model", pb.GenerateRequest(model="m\nx", prompt="x"), "model", "m\\nx"),
    ("long model", pb.GenerateRequest(model="m" * 300, prompt="x"), "model", "limit 256"),
    ("format", pb.GenerateRequest(prompt="x", response_format=pb.ResponseFormat()), "response_format", "one of"),
    ("cache mode", pb.GenerateRequest(prompt="x", cache=pb.CacheOptions(mode=99)), "cache.mode", "99"),
    (
        "max age",
        pb.GenerateRequest(prompt="x", cache=pb.CacheOptions(max_age=Duration(seconds=-1))),
        "cache.max_age",
        "-1",
    ),
    ("17 labels", pb.GenerateRequest(prompt="x", labels={str(i): "" for i in range(17)}), "labels", "limit 16"),
    ("request ID", pb.GenerateRequest(prompt="x", request_id="a b"), "request_id", "a b"),
    ("long request ID", pb.GenerateRequest(prompt="x", request_id="r" * 200), "request_id", "limit 128"),
    ("user", pb.GenerateRequest(prompt="x", routing=pb.RoutingOptions(user="u\x00")), "routing.user", "control"),
    ("tool", pb.GenerateRequest(prompt="x", tools=[pb.Tool(name="no spaces")]), "tools[0].name", "no spaces"),
    ("choice", pb.GenerateRequest(prompt="x", tool_choice="nobody"), "tool_choice", "nobody"),
    ("extra", pb.GenerateRequest(prompt="x", extra=struct(n=math.nan)), "extra", "nan"),
]


@pytest.mark.parametrize(("request_", "field", "told"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
async def test_a_bad_field_is_named_and_the_next_caller_served(
    tmp_path: Path, request_: pb.GenerateRequest, field: str, told: str
) -> None:
    echo = EchoBackend("m")
    async with serving(echo, folder=tmp_path) as at:
        unary = await refused(at.inference.Generate(request_, timeout=WAIT_S))
        streamed = await refused_stream(at.inference.StreamGenerate(request_, timeout=WAIT_S))
        for error in (unary, streamed):
            assert error.code is grpc.StatusCode.INVALID_ARGUMENT
            assert error.reason == "INVALID_ARGUMENT"
            assert error.field == field
            assert told in error.message
            assert field in error.message
            assert error.details[BadRequest].field_violations[0].description
            assert "grpc-retry-pushback-ms" not in error.trailers
        assert not echo.calls
        assert await at.text() == "still here"


async def test_explaining_names_the_field_inside_of_the_request(tmp_path: Path) -> None:
    async with serving(EchoBackend("m"), folder=tmp_path) as at:
        bad = pb.GenerateRequest(prompt="x", temperature=-1)
        error = await refused(at.models.ExplainRoute(models_pb2.ExplainRouteRequest(request=bad)))
        assert error.field == "request.temperature"


async def test_an_unknown_model_is_told_with_near_names(tmp_path: Path) -> None:
    async with serving(EchoBackend("mistral-7b"), folder=tmp_path) as at:
        error = await refused(at.inference.Generate(pb.GenerateRequest(model="mistral-7B", prompt="x")))
        assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "UNKNOWN_MODEL")
        assert "`mistral-7b`" in error.message
        found = error.details[ResourceInfo]
        assert (found.resource_type, found.resource_name) == ("polyroute.model", "mistral-7B")
        for asked in (
            at.models.GetModel(models_pb2.GetModelRequest(model="no\nsuch")),
            at.admin.LoadModel(admin_pb2.LoadModelRequest(model="nosuch")),
            at.admin.GetCacheStats(admin_pb2.GetCacheStatsRequest(model="nosuch")),
            at.models.ExplainRoute(models_pb2.ExplainRouteRequest(request=pb.GenerateRequest(model="no", prompt="x"))),
        ):
            assert (await refused(asked)).reason == "UNKNOWN_MODEL"
        assert await at.text() == "still here"


async def test_our_limit_holds_however_large_it_is(tmp_path: Path) -> None:
    """gRPC's own limit for messages stays above ours, so that ours is the one that is told."""
    limits = LimitsConfig(max_prompt_bytes=20)  # type: ignore[arg-type]
    async with serving(EchoBackend("m"), folder=tmp_path, limits=limits) as at:
        error = await refused(at.inference.Generate(pb.GenerateRequest(prompt="x" * 21)))
        assert "21 bytes, limit 20" in error.message
        assert await at.text("x" * 20) == "x" * 20


async def test_bytes_that_are_no_message_are_a_bad_request(tmp_path: Path) -> None:
    async with serving(EchoBackend("m"), folder=tmp_path) as at:
        junk = b"\xff\xff\xff\xff"
        unary = at.channel.unary_unary("/polyroute.v1.InferenceService/Generate")
        error = await refused(unary(junk, timeout=WAIT_S))
        assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
        streaming = at.channel.unary_stream("/polyroute.v1.InferenceService/StreamGenerate")
        error = await refused_stream(streaming(junk, timeout=WAIT_S))
        assert error.code is grpc.StatusCode.INVALID_ARGUMENT
        both = at.channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
        error = await refused_stream(both(iter([junk]), timeout=WAIT_S))
        assert error.code is grpc.StatusCode.INVALID_ARGUMENT
        assert await at.text() == "still here"


@pytest.mark.parametrize(
    "path", ["/polyroute.v1.InferenceService/Nope", "/polyroute.v1.AdminService/LoadModel", "/" + "x" * 3000 + "/y"]
)
async def test_an_unknown_method_is_unimplemented(tmp_path: Path, path: str) -> None:
    """Admin methods are unknown on the public address."""
    async with serving(EchoBackend("m"), folder=tmp_path) as at:
        error = await refused(at.channel.unary_unary(path)(b"", timeout=WAIT_S))
        assert (error.code, error.reason) == (grpc.StatusCode.UNIMPLEMENTED, "UNIMPLEMENTED")
        assert path[:100] in error.message
        error = await refused_stream(at.channel.stream_stream(path)(iter([b"", b""]), timeout=WAIT_S))
        assert error.code is grpc.StatusCode.UNIMPLEMENTED
        assert await at.text() == "still here"


def test_every_method_is_spoken_for() -> None:
    """A method that a servicer forgets would answer UNIMPLEMENTED with grpcio's own words."""
    from polyroute.server.rpc.admin import AdminService
    from polyroute.server.rpc.inference import InferenceService
    from polyroute.server.rpc.models import ModelService

    served = {
        inference_pb2.DESCRIPTOR.services_by_name["InferenceService"]: InferenceService,
        models_pb2.DESCRIPTOR.services_by_name["ModelService"]: ModelService,
        admin_pb2.DESCRIPTOR.services_by_name["AdminService"]: AdminService,
    }
    for service, servicer in served.items():
        for method in service.methods:
            assert method.name in vars(servicer), f"{service.name}.{method.name}"


async def test_a_huge_message_still_fits_into_the_trailers(tmp_path: Path) -> None:
    async with serving(EchoBackend("m"), folder=tmp_path) as at:
        for name in ("Ж" * 250, "%" * 256, "m" * 5000, "\x00" * 250):
            error = await refused(at.inference.Generate(pb.GenerateRequest(model=name, prompt="x")))
            assert error.details[ErrorInfo].reason in ("INVALID_ARGUMENT", "UNKNOWN_MODEL")


async def test_a_request_that_is_refused_is_let_go_at_once(tmp_path: Path) -> None:
    """And not when the garbage collector finds it: it may have megabytes."""
    async with serving(EchoBackend("m"), folder=tmp_path) as at:
        gc.disable()
        others = {id(each): each for each in _asked()}  # whatever earlier tests have left to the collector
        try:
            await refused(at.inference.Generate(pb.GenerateRequest(model="nope", prompt="x")))
            await until(lambda: all(id(each) in others for each in _asked()))
        finally:
            gc.enable()


def _asked() -> list[Asked]:
    # By type: `isinstance` asks foreign objects for their class, and some of them warn of being asked.
    return [each for each in gc.get_objects() if type(each) is Asked]
