"""A route survives its header, and no header can hurt whoever reads it."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from polyroute.core.event import Attempt, CacheResult, Route
from polyroute.core.route_header import MAX_BYTES, MAX_DEPTH, route_from_header, route_to_header

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
numbers = st.none() | st.floats(0, 1e6)
attempts = st.builds(Attempt, *[texts] * 5, st.integers(0, 1000).map(lambda n: n / 8))


def routes(upstream: st.SearchStrategy[Route | None]) -> st.SearchStrategy[Route]:
    return st.builds(
        Route,
        *[texts] * 6,
        st.sampled_from(CacheResult),
        st.lists(attempts, max_size=2).map(tuple),
        st.lists(texts, max_size=2).map(tuple),
        upstream,
        texts,
        texts,
        numbers,
        numbers,
        numbers,
        texts,
    )


@example(Route(model="\x7f\n\u00e9"))
@given(routes(st.none() | routes(st.none())))
def test_a_route_survives_its_header(route: Route) -> None:
    text = route_to_header(route)
    assert text.isascii()
    assert text.isprintable()
    assert route_from_header(text) == route


def test_every_field_of_a_route_is_carried() -> None:
    route = Route(
        "a", "b", "c", "d", "e", "f", CacheResult.HIT, (Attempt("g"),), ("h",), Route(), "i", "j", 0.1, 0.2, 3, "k"
    )
    assert set(orjson.loads(route_to_header(route))) == set(Route.__struct_fields__)


def test_what_is_not_told_is_left_out() -> None:
    read = route_from_header('{"attempts": [{"deployment": "d"}]}')
    assert read is not None
    for attempts in (read.attempts, (Attempt("d", duration_s=float("inf")),)):
        assert route_to_header(Route(model="m", attempts=attempts)) == '{"model":"m","attempts":[{"deployment":"d"}]}'


def test_a_long_one_loses_reasons_then_upstream_then_attempts_then_the_ends_of_names() -> None:
    long = "x" * MAX_BYTES
    up = Route(model="up", reasons=("r",))
    base = Route(model="m", reasons=("r",), upstream=up, attempts=(Attempt("d"),))
    assert route_from_header(route_to_header(replace(base, reasons=(long,)))) == replace(
        base, reasons=(), upstream=replace(up, reasons=())
    )
    read = route_from_header(route_to_header(replace(base, upstream=Route(model=long))))
    assert read == replace(base, reasons=(), upstream=None)
    read = route_from_header(route_to_header(replace(base, attempts=(Attempt(long),))))
    assert read == Route(model="m")
    text = route_to_header(replace(base, model="\U0001f600" * MAX_BYTES))
    assert len(text) <= MAX_BYTES
    assert route_from_header(text) == Route(model="\U0001f600" * 40)


def test_a_chain_that_is_too_long_is_cut_when_written_and_refused_when_read() -> None:
    chain = Route(model="last")
    for _ in range(MAX_DEPTH + 3):
        chain = Route(model="m", upstream=chain)
    read: Route | None = route_from_header(route_to_header(chain))
    depth = 0
    while read is not None:
        depth, read = depth + 1, read.upstream
    assert depth == MAX_DEPTH
    assert route_from_header('{"upstream":' * MAX_DEPTH + "{}" + "}" * MAX_DEPTH) is None
    assert route_from_header('{"upstream":' * 100_000) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{",
        '{"model":1}',
        '{"attempts":{}}',
        '{"attempts":[1]}',
        '{"reasons":[null]}',
        '{"upstream":[]}',
        '{"hash_point":"x"}',
        '{"hash_point":true}',
        '{"model":"\\ud800"}',
        '{"hash_point":NaN}',
    ],
)
def test_what_is_no_route_is_nothing(text: str) -> None:
    assert route_from_header(text) is None


def test_keys_and_words_from_the_future_are_ignored() -> None:
    assert route_from_header('{"model":"m","cache":"PSYCHIC","more":[1]}') == Route(model="m")
