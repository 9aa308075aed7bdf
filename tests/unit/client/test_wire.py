"""Nothing that the server says is lost on the way into the client's values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import pytest
from google.protobuf.message import Message

from polyroute.client import answers, enums, models, operations
from polyroute.client.wire import enum_number, enum_word, read, wire_names
from polyroute.v1 import admin_pb2, inference_pb2, models_pb2

PAIRS: list[tuple[type[Any], type[Message]]] = [
    (answers.Answer, inference_pb2.GenerateResponse),
    (answers.TokenCount, inference_pb2.CountTokensResponse),
    (answers.Delta, inference_pb2.GenerateDelta),
    (models.ModelDescription, models_pb2.Model),
    (models.Plan, models_pb2.ExplainRouteResponse),
    (operations.Reloaded, admin_pb2.ReloadResponse),
    (operations.RunningConfig, admin_pb2.GetConfigResponse),
    (operations.CacheStats, admin_pb2.GetCacheStatsResponse),
    (operations.Rollout, admin_pb2.Rollout),
    (operations.ExperimentReport, admin_pb2.GetExperimentReportResponse),
]

ENUMS: list[tuple[type[StrEnum], Any]] = [
    (enums.CacheMode, inference_pb2.CacheMode),
    (enums.CacheResult, inference_pb2.CacheResult),
    (enums.FinishReason, inference_pb2.FinishReason),
    (enums.ModelType, models_pb2.ModelType),
    (enums.ModelState, models_pb2.ModelState),
    (enums.BreakerState, models_pb2.BreakerState),
    (enums.RolloutState, admin_pb2.RolloutState),
]


def fill(message: Any, depth: int = 4) -> None:
    """Sets every field to something that is not its default."""
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        kind = field.message_type.full_name if field.message_type else ""
        if field.message_type and field.message_type.GetOptions().map_entry:
            value["cause"] = 3
        elif kind == "google.protobuf.Struct":
            value["ratio"] = 1.5
        elif kind == "google.protobuf.Duration":
            value.FromMilliseconds(1500)
        elif kind == "google.protobuf.Timestamp":
            value.FromSeconds(1893456000)
        elif kind:
            if depth:
                fill(value.add() if field.is_repeated else value, depth - 1)
        elif field.enum_type:
            setattr(message, field.name, 2)
        else:
            example = {9: "text", 12: b"bytes", 8: True, 1: 0.5}.get(field.type, 7)
            if field.is_repeated:
                value.append(example)
            else:
                setattr(message, field.name, example)


def walk(value: Any) -> Iterator[tuple[str, Any]]:
    """Every field of a dataclass and of those inside it."""
    for field in fields(value):
        inner = getattr(value, field.name)
        if field.name == "upstream":
            continue  # a route inside a route ends somewhere
        yield f"{type(value).__name__}.{field.name}", inner
        for item in inner if isinstance(inner, tuple) else [inner]:
            if is_dataclass(item):
                yield from walk(item)


@pytest.mark.parametrize(("cls", "message"), PAIRS, ids=lambda c: c.__name__)
def test_every_field_is_read(cls: type[Any], message: type[Message]) -> None:
    filled = message()
    fill(filled)
    for name, value in walk(read(cls, filled)):
        assert value not in (None, "", 0, (), {}, "unspecified"), name
        if name.endswith("_s"):
            assert value == 1.5, name


@pytest.mark.parametrize(("cls", "message"), PAIRS, ids=lambda c: c.__name__)
def test_every_field_of_the_wire_has_one_of_ours(cls: type[Any], message: type[Message]) -> None:
    seen = set()

    def check(cls: Any, descriptor: Any) -> None:
        if descriptor.full_name in seen:
            return
        seen.add(descriptor.full_name)
        names = wire_names(cls, descriptor)
        assert sorted(names.values()) == sorted(f.name for f in descriptor.fields), cls
        filled = message_of(descriptor)()
        fill(filled)
        value = read(cls, filled)
        for ours, theirs in names.items():
            inner = getattr(value, ours)
            inner = inner[0] if isinstance(inner, tuple) and inner else inner
            if is_dataclass(inner):
                check(type(inner), descriptor.fields_by_name[theirs].message_type)

    def message_of(descriptor: Any) -> Any:
        return getattr(
            next(m for m in (inference_pb2, models_pb2, admin_pb2) if hasattr(m, descriptor.name)), descriptor.name
        )

    check(cls, message.DESCRIPTOR)


@pytest.mark.parametrize(("cls", "message"), PAIRS, ids=lambda c: c.__name__)
def test_an_empty_message_is_read(cls: type[Any], message: type[Message]) -> None:
    assert isinstance(read(cls, message()), cls)


@pytest.mark.parametrize(("cls", "wire"), ENUMS, ids=lambda c: getattr(c, "__name__", ""))
def test_the_words_are_those_of_the_protocol(cls: type[StrEnum], wire: Any) -> None:
    assert [enum_word(wire.DESCRIPTOR, name) for name in list(wire.keys())] == [word.value for word in cls]
    for word in cls:
        assert enum_word(wire.DESCRIPTOR, wire.Name(enum_number(wire.DESCRIPTOR, word))) == word


def test_a_word_of_a_later_version_is_unspecified() -> None:
    response = inference_pb2.GenerateResponse(route=inference_pb2.Route(cache=99))  # type: ignore[arg-type]
    assert read(answers.Answer, response).route.cache is enums.CacheResult.UNSPECIFIED


def test_what_is_unset_is_none_where_that_differs_from_zero() -> None:
    answer = read(answers.Answer, inference_pb2.GenerateResponse())
    assert (answer.seed, answer.matched_stop, answer.created, answer.timing.total_s) == (None, None, None, None)
    assert answer.route.upstream is None
    set_to_zero = read(answers.Answer, inference_pb2.GenerateResponse(seed=0, matched_stop=""))
    assert (set_to_zero.seed, set_to_zero.matched_stop) == (0, "")


def test_moments_know_their_zone_and_impossible_ones_cost_no_answer() -> None:
    response = inference_pb2.GenerateResponse()
    response.created.FromSeconds(1893456000)
    assert read(answers.Answer, response).created == datetime(2030, 1, 1, tzinfo=UTC)
    response.created.seconds = 2**60
    assert read(answers.Answer, response).created is None
