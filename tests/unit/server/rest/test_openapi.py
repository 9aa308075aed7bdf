"""The API's description is whole: every reference leads somewhere, every body is closed, every endpoint is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from polyroute.core.config import Config
from polyroute.routing.cache.answers import Answers
from polyroute.routing.cache.invalidations import Invalidations
from polyroute.routing.cache.memory_tier import MemoryTier
from polyroute.routing.gateway import Gateway
from polyroute.routing.metrics import Metrics
from polyroute.routing.registry import Snapshot
from polyroute.server.feedback import FeedbackIntake
from polyroute.server.rest.chat_body import ChatBody
from polyroute.server.rest.endpoints import endpoints
from polyroute.server.rest.openapi import describe
from polyroute.server.wire.stored import AnswerCodec


@pytest.fixture
def document(tmp_path: Path) -> dict[str, Any]:
    config = Config.model_validate({"models": [{"id": "m", "type": "remote", "base_url": "http://x"}]})
    registry = CollectorRegistry()
    answers = Answers(MemoryTier(1), [], Invalidations(), AnswerCodec())
    gateway = Gateway(Snapshot.of(config, {}), answers, Metrics(registry))
    return describe(endpoints(gateway, registry, lambda: False, FeedbackIntake(None)))


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from nodes(item)
    elif isinstance(value, list):
        for item in value:
            yield from nodes(item)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    refs = [node["$ref"] for node in nodes(document) if isinstance(node.get("$ref"), str)]
    assert refs
    for ref in refs:
        here: Any = document
        for part in ref.removeprefix("#/").split("/"):
            here = here[part]
        assert here


def test_every_operation_is_described(document: dict[str, Any]) -> None:
    operations = [one for methods in document["paths"].values() for one in methods.values()]
    names = [one["operationId"] for one in operations]
    assert len(set(names)) == len(names)
    for one in operations:
        assert one["summary"]
        assert one["responses"]["200"]["description"]
        assert one["responses"]["200"]["content"]


def test_the_description_is_that_of_the_parser(document: dict[str, Any]) -> None:
    schema = document["components"]["schemas"]["ChatBody"]
    assert set(schema["properties"]) == {field.alias or name for name, field in ChatBody.model_fields.items()}
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["messages"]


def test_the_version_is_one_that_tools_know(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    assert document["info"]["title"] == "Polyroute"
