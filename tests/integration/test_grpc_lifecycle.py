"""How a server begins and ends: ports that are taken, draining, open watches, clients that ping."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import grpc
import grpc.aio
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from grpc_health.v1 import health_pb2
from structlog.testing import capture_logs

from polyroute.backends.echo import EchoBackend, Script
from polyroute.server.app import BindError, Server
from polyroute.server.settings import Address
from polyroute.v1 import inference_pb2 as pb
from tests.integration.grpc_serving import WAIT_S, refused, serving, settings_for, until


async def test_a_second_server_on_the_port_fails_and_says_which(tmp_path: Path) -> None:
    async with serving(EchoBackend("m"), folder=tmp_path) as at:
        taken = at.server.grpc_address
        echo = EchoBackend("n")
        settings = settings_for(echo, folder=tmp_path, grpc_address=Address(taken.host, taken.port, "--grpc-address"))
        with pytest.raises(BindError, match=rf"cannot listen on {taken}.*--grpc-address"):
            async with Server(settings, environ={}, backends={"n": echo}):
                pytest.fail("it listens where another one does")
        assert echo.stopped
        assert await at.text() == "still here"


async def test_it_listens_on_ipv6(tmp_path: Path) -> None:
    echo = EchoBackend("m")
    settings = settings_for(echo, folder=tmp_path, grpc_address=Address.parse("[::1]:0", "--grpc-address"))
    try:
        async with serving(echo, folder=tmp_path, settings=settings) as at:
            assert str(at.server.grpc_address).startswith("[::1]:")
            assert at.server.grpc_address.port > 0
            assert await at.text() == "still here"
    except BindError:
        pytest.skip("no IPv6 on this machine")


async def test_an_open_address_is_warned_of(tmp_path: Path) -> None:
    echo = EchoBackend("m")
    settings = settings_for(echo, folder=tmp_path, grpc_address=Address.parse("0.0.0.0:0", "--grpc-address"))
    with capture_logs() as logged:
        async with Server(settings, environ={}, backends={"m": echo}) as at:
            address = str(at.grpc_address)
    warned = [line for line in logged if line["log_level"] == "warning"]
    assert [line["address"] for line in warned if "address" in line] == [address]


async def test_a_drain_finishes_what_is_in_flight_and_refuses_the_rest(tmp_path: Path) -> None:
    gate = asyncio.Event()
    echo = EchoBackend("m", script=Script(texts=["a", "b"], gate=gate, gate_after=1))
    async with serving(echo, folder=tmp_path) as at:
        watch = at.health.Watch(health_pb2.HealthCheckRequest(), timeout=WAIT_S)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        unary = asyncio.ensure_future(at.inference.Generate(pb.GenerateRequest(prompt="x")))
        await until(lambda: echo.open == 1)
        draining = asyncio.create_task(at.server.drain(WAIT_S))

        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert await watch.read() is grpc.aio.EOF, "an open Watch ends with the drain"
        error = await refused(at.inference.Generate(pb.GenerateRequest(prompt="y")))
        assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        assert error.details[RetryInfo].retry_delay.ToMilliseconds() > 0
        assert int(error.trailers["grpc-retry-pushback-ms"]) > 0
        status = await at.health.Check(health_pb2.HealthCheckRequest(service="m"))
        assert status.status == health_pb2.HealthCheckResponse.NOT_SERVING
        async with aiohttp.ClientSession() as http:
            base = f"http://{at.server.http_address}"
            async with http.get(f"{base}/healthz") as answer:
                assert answer.status == 200
            async with http.get(f"{base}/readyz") as answer:
                assert answer.status == 503
            async with http.post(f"{base}/v1/generate", json={"prompt": "x"}) as answer:
                assert answer.status == 503
        assert not draining.done()

        gate.set()
        await draining
        assert (await unary).text == "ab"
    assert echo.stopped


async def test_what_outlasts_the_grace_is_ended(tmp_path: Path) -> None:
    echo = EchoBackend("m", script=Script(texts=["a", "b"], gate=asyncio.Event(), gate_after=1))
    async with serving(echo, folder=tmp_path) as at:
        stream = at.inference.StreamGenerate(pb.GenerateRequest(prompt="x"))
        assert (await stream.read()).WhichOneof("event") == "start"
        assert (await stream.read()).delta.text == "a"
        await at.server.drain(0.05)
        assert echo.open == 1
        await at.server.stop()
        error = await refused(stream.read())
        assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        assert echo.open == 0


async def test_a_client_that_pings_often_keeps_its_long_call(tmp_path: Path) -> None:
    """By default gRPC ends the connection of a unary call at the third ping."""
    gate = asyncio.Event()
    echo = EchoBackend("m", script=Script(texts=["done"], gate=gate))
    pinging = (
        ("grpc.keepalive_time_ms", 1000),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.use_local_subchannel_pool", 1),
    )
    async with (
        serving(echo, folder=tmp_path) as at,
        grpc.aio.insecure_channel(str(at.server.grpc_address), options=pinging) as channel,
    ):
        generate = channel.unary_unary(
            "/polyroute.v1.InferenceService/Generate",
            request_serializer=pb.GenerateRequest.SerializeToString,
            response_deserializer=pb.GenerateResponse.FromString,
        )
        asking = asyncio.ensure_future(generate(pb.GenerateRequest(prompt="x")))
        await asyncio.wait({asking}, timeout=5.5)
        assert not asking.done()
        gate.set()
        assert (await asking).text == "done"


async def test_thousands_of_calls_that_come_at_once_are_all_taken_up(tmp_path: Path) -> None:
    async with serving(EchoBackend("m"), folder=tmp_path) as at:
        asked = health_pb2.HealthCheckRequest(service="m")
        answers = await asyncio.gather(*(at.health.Check(asked, timeout=WAIT_S) for _ in range(6000)))
        assert {answer.status for answer in answers} == {health_pb2.HealthCheckResponse.SERVING}
