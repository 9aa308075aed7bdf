"""A stored answer that is given again is written as any other, whatever was written of it before."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from polyroute.core.event import Attempt, CacheResult, Finished, FinishReason, Route, Started, Timing, Usage, Whole
from polyroute.server.answers import whole_answer
from polyroute.server.wire.again import whole_to_bytes
from polyroute.server.wire.answer import answer_to_wire
from polyroute.v1 import inference_pb2 as pb
from tests.unit.server.wire.test_answer import FINISHED, TOKEN, everything

ROUTE = Route(
    requested="r",
    model="m",
    version="v",
    deployment="d",
    cache=CacheResult.HIT,
    attempts=(Attempt("d", duration_s=0.25),),
    reasons=("`r` is another name of `d`", "cache: used", "cache: found in memory, stored 3 s ago"),
    trace_id="t" * 32,
    cache_age_s=3.5,
    cache_key="k" * 64,
)
"""That of a hit, as the router gives it."""


def whole(route: Route, forms: Any, timing: Timing = FINISHED.timing) -> Whole:
    return Whole(Started(route), (TOKEN, TOKEN), replace(FINISHED, timing=timing), forms)


def read(raw: bytes) -> pb.GenerateResponse:
    message = pb.GenerateResponse.FromString(raw)
    assert message.HasField("created")
    message.ClearField("created")
    return message


def plainly(answer: Whole, request_id: str) -> pb.GenerateResponse:
    return read(answer_to_wire(whole_answer(answer), request_id).SerializeToString())


UNSET = {"upstream": Route(model="up"), "hash_point": 0.5, "probability": 0.0}
OTHERS = [change for change in everything(ROUTE) if change[0] not in UNSET]
OTHERS += [(name, replace(ROUTE, **{name: value})) for name, value in UNSET.items()]  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "other"), OTHERS)
def test_every_field_of_a_route_is_this_times(name: str, other: Route) -> None:
    forms: dict[tuple[str, ...], tuple[bytes, ...]] = {}
    for given in (ROUTE, other, ROUTE):
        answer = whole(given, forms)
        assert read(whole_to_bytes(answer, "id")) == plainly(answer, "id"), name


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 0.5, 0.999999999, 0.9999999999, 1.0, 3600.25])
def test_times_and_the_id_are_this_calls(seconds: float) -> None:
    forms: dict[tuple[str, ...], tuple[bytes, ...]] = {}
    whole_to_bytes(whole(ROUTE, forms), "first")
    answer = whole(replace(ROUTE, cache_age_s=seconds), forms, Timing(0.0, 0.0, seconds, seconds, seconds))
    assert read(whole_to_bytes(answer, "second")) == plainly(answer, "second")


@pytest.mark.parametrize(
    "timing",
    [
        Timing(0.0, 0.0, 0.001, 0.002, 0.002),
        Timing(0.0, 0.0, 0.001, 0.002, 0.001),
        Timing(0.5, 0.0, 0.001, 0.002, 0.002),
        Timing(0.0, 0.0, 0.003, 0.002, 0.002),
        Timing(0.0, 0.0, -0.001, 0.002, 0.002),
        Timing(0.0, 0.0, 0.5, 1.5, 1.5),
    ],
)
def test_whatever_its_times_are_they_are_told(timing: Timing) -> None:
    forms: dict[tuple[str, ...], tuple[bytes, ...]] = {}
    whole_to_bytes(whole(ROUTE, forms), "first")
    answer = whole(ROUTE, forms, timing)
    assert read(whole_to_bytes(answer, "second")) == plainly(answer, "second")


def test_one_form_is_kept_of_what_is_the_same_each_time_and_few_in_all() -> None:
    forms: dict[tuple[str, ...], tuple[bytes, ...]] = {}
    for age in range(10):
        reasons = (*ROUTE.reasons[:-1], f"cache: found in memory, stored {age} s ago")
        whole_to_bytes(whole(replace(ROUTE, reasons=reasons, cache_age_s=float(age)), forms), str(age))
    assert len(forms) == 1
    for i in range(10):
        whole_to_bytes(whole(replace(ROUTE, requested=f"name {i}"), forms), "id")
    assert len(forms) <= 2


def test_what_has_no_place_for_forms_is_written_all_the_same() -> None:
    answer = Whole(Started(ROUTE), (), Finished(FinishReason.STOP, Usage(1, 2, 3)))
    assert read(whole_to_bytes(answer, "id")) == plainly(answer, "id")
