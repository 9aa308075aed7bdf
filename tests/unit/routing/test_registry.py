"""The registry: what every name leads to, and what makes a deployment another one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import TypeAdapter

from polyroute.backends.echo import EchoBackend
from polyroute.core.backend import Facts, ModelState
from polyroute.core.config import ModelConfig
from polyroute.core.errors import InvalidArgument, UnknownModel
from polyroute.routing.gateway import Gateway
from polyroute.routing.registry import LOCAL_CONCURRENCY, REMOTE_CONCURRENCY, Snapshot, fingerprint, permits_for

LOCAL = {"id": "m", "type": "local"}
REMOTE = {"id": "m", "type": "remote", "base_url": "http://peer:1"}


def config(base: dict[str, Any], **options: Any) -> ModelConfig:
    parsed: ModelConfig = TypeAdapter(ModelConfig).validate_python({**base, **options})
    return parsed


@pytest.fixture
def snapshot(build: Callable[..., Gateway]) -> Snapshot:
    gateway = build(
        {
            "default_model": "chat",
            "models": [LOCAL, {**REMOTE, "id": "n"}],
            "routes": [
                {"id": "chat", "variants": [{"name": "a", "model": "m", "weight": 3}, {"name": "b", "model": "n"}]}
            ],
        },
        {"m": EchoBackend("m"), "n": EchoBackend("n")},
    )
    return gateway._snapshot


def test_every_model_is_a_route_to_itself(snapshot: Snapshot) -> None:
    assert snapshot.resolve("m").direct
    assert snapshot.resolve("m").variants[0].deployment == "m"


def test_an_empty_name_is_the_default(snapshot: Snapshot) -> None:
    assert snapshot.resolve("").id == "chat"
    rule = snapshot.resolve("")
    assert [(v.name, rule.share(v)) for v in rule.variants] == [("a", 0.75), ("b", 0.25)]


def test_an_unknown_name_is_refused_with_near_ones(snapshot: Snapshot) -> None:
    with pytest.raises(UnknownModel, match="no model or route `chta`; did you mean `chat`") as unknown:
        snapshot.resolve("chta")
    assert (unknown.value.kind, unknown.value.name) == ("model", "chta")


def test_a_route_is_no_model(snapshot: Snapshot) -> None:
    with pytest.raises(InvalidArgument, match="`chat` is a route; name one of its models"):
        snapshot.deployment("chat")
    with pytest.raises(UnknownModel):
        snapshot.deployment("nowhere")


def test_without_a_default_a_request_must_name_a_model(build: Callable[..., Gateway]) -> None:
    models = [LOCAL, {**REMOTE, "id": "n"}]
    gateway = build({"models": models}, {"m": EchoBackend("m"), "n": EchoBackend("n")})
    with pytest.raises(InvalidArgument, match="model: name one"):
        gateway.model("")


def test_permits_are_sized_by_the_kind_of_model() -> None:
    assert permits_for(config(LOCAL, max_sequences=5), told(0)).max_concurrency == 5
    assert permits_for(config(LOCAL, max_sequences=5), told(10)).max_concurrency == 10  # of two replicas
    assert permits_for(config(LOCAL, max_concurrency=5), told(256)).max_concurrency == 5
    assert permits_for(config(REMOTE), told(0)).max_concurrency == REMOTE_CONCURRENCY
    chosen = permits_for(config(REMOTE, max_concurrency=2, max_queue=3, queue_timeout="4s"), told(256))
    assert (chosen.max_concurrency, chosen.max_queue, chosen.queue_timeout_s) == (2, 3, 4.0)


def test_permits_of_a_peer_adapt_where_the_configuration_says_so() -> None:
    assert permits_for(config(REMOTE, max_concurrency="auto"), told(0)).max_concurrency == 4
    assert permits_for(config(REMOTE, max_concurrency={"min": 8, "max": 9}), told(0)).max_concurrency == 8


def test_permits_follow_what_the_engine_has_chosen_for_its_device() -> None:
    most = 0
    permits = permits_for(config(LOCAL), lambda: Facts(ModelState.WARM, max_sequences=most))
    assert permits.max_concurrency == LOCAL_CONCURRENCY
    most = 256
    assert permits.max_concurrency == 256


def told(max_sequences: int) -> Callable[[], Facts]:
    return lambda: Facts(ModelState.WARM, max_sequences=max_sequences)


@pytest.mark.parametrize(
    ("base", "options"),
    [
        (LOCAL, {"source": "demo"}),
        (LOCAL, {"quantization": "int8"}),
        (LOCAL, {"revision": "abc"}),
        (LOCAL, {"dtype": "float32"}),
        (LOCAL, {"device": "cpu"}),
        (LOCAL, {"trust_remote_code": True}),
        (REMOTE, {"base_url": "http://another:1"}),
        (REMOTE, {"peer_model": "x"}),
        (REMOTE, {"api": "openai"}),
        (REMOTE, {"headers": {"X-Tenant": "a"}}),
    ],
)
def test_what_can_change_an_answer_changes_the_fingerprint(base: dict[str, Any], options: dict[str, Any]) -> None:
    assert fingerprint(config(base)) != fingerprint(config(base, **options))


def test_tenants_do_not_share_answers() -> None:
    one, two = (fingerprint(config(REMOTE, headers={"X-Tenant": tenant})) for tenant in "ab")
    assert one != two


@pytest.mark.parametrize(
    ("base", "options"),
    [
        (LOCAL, {"max_queue": 1, "timeout": 5, "max_sequences": 2, "warm": {"min": 1}}),
        (LOCAL, {"max_batch_tokens": 64, "kv_cache_memory": "1GiB", "cuda_graphs": False}),
        (REMOTE, {"api_key": "rotated", "connect_timeout": 1, "balance": "round_robin", "cache": {"mode": "off"}}),
    ],
)
def test_what_cannot_change_an_answer_does_not(base: dict[str, Any], options: dict[str, Any]) -> None:
    assert fingerprint(config(base)) == fingerprint(config(base, **options))


def test_the_order_of_replicas_and_headers_does_not_matter() -> None:
    one = {"id": "m", "type": "remote", "base_urls": ["http://a:1", "http://b:1"], "headers": {"A": "1", "B": "2"}}
    two = {"id": "m", "type": "remote", "base_urls": ["http://b:1", "http://a:1"], "headers": {"b": "2", "a": "1"}}
    assert fingerprint(config(one)) == fingerprint(config(two))
