"""Retries, as the server sees them."""

from __future__ import annotations

import asyncio
import time

import grpc
import pytest

from polyroute.client import AdminClient, Client, Overloaded, Unavailable, Unreachable
from tests.integration.client_peer import LIMIT_S, Failure, Peer, serving

BUSY = Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", "OVERLOADED")
LOADING = Failure(grpc.StatusCode.UNAVAILABLE, "loading", "MODEL_LOADING")


@pytest.mark.parametrize("failure", [BUSY, LOADING], ids=lambda f: f.reason)
async def test_a_call_that_came_to_nothing_is_repeated(failure: Failure) -> None:
    async with serving(Peer(failures=[failure, failure])) as peer, Client(peer.address) as client:
        assert (await client.generate("x")).text == "Paris."
        assert [m.get("grpc-previous-rpc-attempts") for _, _, m, _ in peer.calls] == [None, "1", "2"]


async def test_a_stream_is_repeated_before_its_first_event() -> None:
    async with serving(Peer(failures=[LOADING, BUSY])) as peer, Client(peer.address) as client:
        assert (await client.stream("x").read()).text == "Paris."
        assert len(peer.calls) == 3


async def test_a_stream_is_not_repeated_after_it() -> None:
    async with serving(Peer(late_failure=LOADING)) as peer, Client(peer.address) as client:
        stream = client.stream("x")
        with pytest.raises(Unavailable, match="loading"):
            await stream.read()
        assert stream.text == "Paris."
        assert len(peer.calls) == 1


async def test_the_delay_is_the_one_that_the_server_asks_for() -> None:
    busy = Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", "OVERLOADED", pushback_ms=1500)
    async with serving(Peer(failures=[busy])) as peer, Client(peer.address) as client:
        began = time.monotonic()
        await client.generate("x")
        assert time.monotonic() - began >= 1.4, "our own delay would have been a tenth of a second"
        assert len(peer.calls) == 2


async def test_a_server_may_forbid_repeating() -> None:
    busy = Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", "OVERLOADED", pushback_ms=-1)
    async with serving(Peer(failures=[busy])) as peer, Client(peer.address) as client:
        with pytest.raises(Overloaded):
            await client.generate("x")
        assert len(peer.calls) == 1


@pytest.mark.parametrize("retries", [0, 1, 4])
async def test_it_is_repeated_so_often_and_no_more(retries: int) -> None:
    quick = Failure(grpc.StatusCode.UNAVAILABLE, "loading", "MODEL_LOADING", pushback_ms=1)
    async with serving(Peer(failures=[quick] * 10)) as peer, Client(peer.address, retries=retries) as client:
        with pytest.raises(Unavailable):
            await client.generate("x")
        assert len(peer.calls) == retries + 1


async def test_a_long_prompt_is_repeated_too() -> None:
    """gRPC gives up repeating what does not fit its buffer; the default holds 256 KB."""
    async with serving(Peer(failures=[LOADING])) as peer, Client(peer.address) as client:
        assert (await client.generate("x" * 3_000_000)).text == "Paris."
        assert len(peer.calls) == 2


async def test_an_operators_change_is_not_repeated() -> None:
    async with serving(Peer(failures=[LOADING])) as peer, AdminClient(peer.address) as admin:
        with pytest.raises(Unavailable):
            await admin.load("demo")
        assert (await admin.cache_stats()).tiers
        assert len(peer.calls) == 2


async def test_a_peer_that_vanished_without_a_word_is_noticed() -> None:
    """Keepalive: a connection whose packets go nowhere fails its calls."""
    async with serving(Peer(endless=True)) as peer:
        host, port = peer.address.split(":")
        pumps: set[asyncio.Task[None]] = set()
        writers: list[asyncio.StreamWriter] = []

        async def relay(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while block := await source.read(65536):
                sink.write(block)
                await sink.drain()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            far_reader, far_writer = await asyncio.open_connection(host, int(port))
            writers.extend((writer, far_writer))
            pumps.update(
                {asyncio.create_task(relay(reader, far_writer)), asyncio.create_task(relay(far_reader, writer))}
            )

        proxy = await asyncio.start_server(connected, "127.0.0.1", 0)
        address = f"127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
        try:
            async with Client(address, keepalive_s=1, retries=0) as client:
                call = asyncio.create_task(client.generate("x"))
                await asyncio.wait_for(peer.streaming.wait(), LIMIT_S)
                await asyncio.sleep(5)  # a few pings: gRPC by itself gives up after two without data between them
                for pump in pumps:
                    pump.cancel()
                with pytest.raises(Unreachable):
                    await asyncio.wait_for(call, 30)  # pings held back would take a minute
        finally:
            await asyncio.gather(*pumps, return_exceptions=True)
            for writer in writers:
                writer.close()
            proxy.close()
            await proxy.wait_closed()
