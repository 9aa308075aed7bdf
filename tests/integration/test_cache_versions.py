"""What a peer answers is kept under the version that gave it, whenever the router learns of that."""

from __future__ import annotations

from pathlib import Path

from polyroute.backends.echo import EchoBackend, Script
from polyroute.core.config import CacheConfig, Config, RemoteConfig
from polyroute.server.settings import Settings
from polyroute.v1 import inference_pb2 as pb
from tests.integration.grpc_serving import ANYWHERE, WAIT_S, Serving, serving, until
from tests.integration.rest_serving import rest_over

CHAT = pb.GenerateRequest(messages=pb.MessageList(messages=[pb.Message(role="user", content="x")]), temperature=0)


def settings(url: str, folder: Path) -> Settings:
    model = RemoteConfig(id="m", type="remote", base_urls=(url,), probe_interval=3600)
    config = Config(models=(model,), cache=CacheConfig())
    return Settings(config, ANYWHERE, ANYWHERE, ANYWHERE, cache_dir=folder, cache_bytes=2**24)


def version(at: Serving) -> str:
    return at.server.gateway.snapshot.deployments["m"].backend.facts().version


async def test_new_weights_never_answer_for_the_old_ones(tmp_path: Path) -> None:
    """The peer was restarted with other weights, which nobody has told the router yet; later the old ones return."""
    theirs = EchoBackend("m", version="1", script=Script(texts=["old"]))
    async with rest_over(theirs) as peer, serving(folder=tmp_path, settings=settings(peer.url, tmp_path)) as at:
        await until(lambda: version(at) == "1")
        theirs.version, theirs.script = "2", Script(texts=["new"])
        first = await at.inference.Generate(CHAT, timeout=WAIT_S)
        assert (first.text, first.route.version, first.route.cache) == ("new", "2", pb.CACHE_RESULT_MISS)
        await until(lambda: version(at) == "2")
        again = await at.inference.Generate(CHAT, timeout=WAIT_S)
        assert (again.text, again.route.version, again.route.cache) == ("new", "2", pb.CACHE_RESULT_HIT)
        assert again.route.cache_key == first.route.cache_key
        theirs.version, theirs.script = "1", Script(texts=["old"])
        refresh = pb.GenerateRequest(cache=pb.CacheOptions(mode=pb.CACHE_MODE_BYPASS))
        refresh.MergeFrom(CHAT)
        await at.inference.Generate(refresh, timeout=WAIT_S)  # by which the router learns of it
        await until(lambda: version(at) == "1")
        old = await at.inference.Generate(CHAT, timeout=WAIT_S)
        assert (old.text, old.route.version, old.route.cache) == ("old", "1", pb.CACHE_RESULT_MISS)


async def test_nothing_is_kept_of_a_peer_that_does_not_know_its_version_yet(tmp_path: Path) -> None:
    theirs = EchoBackend("m", version="")
    async with rest_over(theirs) as peer, serving(folder=tmp_path, settings=settings(peer.url, tmp_path)) as at:
        for _ in range(2):
            answer = await at.inference.Generate(CHAT, timeout=WAIT_S)
            assert answer.route.cache == pb.CACHE_RESULT_BYPASS
        assert "cache: not used, the model's version is not known now" in answer.route.reasons
        theirs.version = "7"
        await at.inference.Generate(CHAT, timeout=WAIT_S)
        await until(lambda: version(at) == "7")
        results = [(await at.inference.Generate(CHAT, timeout=WAIT_S)).route.cache for _ in range(2)]
        assert results == [pb.CACHE_RESULT_MISS, pb.CACHE_RESULT_HIT]
