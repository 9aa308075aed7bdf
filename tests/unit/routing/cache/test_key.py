"""Two requests share an answer only if nothing that can change it differs between them."""

from __future__ import annotations

import sys
import tracemalloc
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct, defstruct
from msgspec.structs import fields, replace

from polyroute.core.request import (
    CacheMode,
    CacheOptions,
    Message,
    Request,
    ResponseFormat,
    RoutingOptions,
    Sampling,
    Tool,
    ToolCall,
)
from polyroute.routing.cache.key import _WORDS, EXCLUDED, canonical, digest

BASE = Request(
    model="chat",
    prompt="hi",
    messages=(Message("assistant", "x", (ToolCall("1", "f", "{}"),), "t"),),
    response_format=ResponseFormat("choice", ("a", "b")),
    tools=(Tool("f", "d", {"type": "object"}),),
    extra={"a": 1},
)


def key(request: Request, model: str = "m", version: str = "v", fingerprint: str = "f") -> bytes:
    return canonical(model, version, fingerprint, request)


def changed(value: Any, hint: Any) -> Any:
    """Another value that the type allows."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return value + "x" if not typing.get_args(hint) or typing.get_origin(hint) is not typing.Literal else "regex"
    if isinstance(value, (int, float)):
        return value + 1
    if isinstance(value, tuple):
        return (*value, *value[:1]) if value else ("x",)
    if isinstance(value, Mapping):
        return {**value, "other": "y"}
    if value is None:
        return 1
    raise AssertionError(f"say here how to change a {type(value).__name__}")


def every_change(value: Any) -> Iterator[tuple[str, Any]]:
    """Each field of a struct, and of those below it, changed alone: its path and the whole with the change."""
    hints = typing.get_type_hints(type(value))
    for field in fields(value):
        held = getattr(value, field.name)
        if isinstance(held, Struct):
            for path, other in every_change(held):
                yield f"{field.name}.{path}", replace(value, **{field.name: other})
        elif isinstance(held, tuple) and held and isinstance(held[0], Struct):
            for path, other in every_change(held[0]):
                yield f"{field.name}[0].{path}", replace(value, **{field.name: (other, *held[1:])})
            yield field.name, replace(value, **{field.name: (*held, held[0])})
        elif isinstance(held, CacheMode):
            yield field.name, replace(value, **{field.name: CacheMode.REFRESH})
        else:
            yield field.name, replace(value, **{field.name: changed(held, hints[field.name])})


def test_every_field_of_a_request_counts_unless_it_is_named_as_not_counting() -> None:
    seen = {key(BASE): "nothing"}
    paths = []
    for path, other in every_change(BASE):
        paths.append(path)
        if path.split(".")[0].split("[")[0] in EXCLUDED:
            assert key(other) == key(BASE), path
        else:
            assert key(other) not in seen, f"{path} is the same as {seen[key(other)]}"
            seen[key(other)] = path
    for kind in (Sampling, Message, ToolCall, Tool, ResponseFormat, RoutingOptions, CacheOptions):
        for field in fields(kind):
            assert any(path.endswith(f".{field.name}") for path in paths), f"{kind.__name__}.{field.name}"


def test_a_field_added_later_counts_by_itself() -> None:
    later = defstruct("Later", [("new", int | None, None)], bases=(Request,), frozen=True)
    assert key(later(prompt="hi", new=1)) != key(later(prompt="hi"))
    assert key(later(prompt="hi")) != key(Request(prompt="hi"))


def test_only_fields_that_exist_are_excluded() -> None:
    assert {field.name for field in fields(Request)} >= EXCLUDED


def test_model_version_and_deployment_count() -> None:
    keys = {key(BASE), key(BASE, model="n"), key(BASE, version="w"), key(BASE, fingerprint="g")}
    assert len(keys) == 4
    assert key(BASE, model="mv", version="") != key(BASE, model="m", version="v")


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (Request(sampling=Sampling(temperature=1)), Request(sampling=Sampling(temperature=1.0))),
        (Request(sampling=Sampling(temperature=0)), Request(sampling=Sampling(temperature=-0.0))),
        (Request(extra={"a": 1, "b": {"c": 2, "d": 3}}), Request(extra={"b": {"d": 3.0, "c": 2}, "a": 1.0})),
        (Request(extra=types.MappingProxyType({"a": [1]})), Request(extra={"a": [1.0]})),
    ],
)
def test_equal_requests_written_differently_share_a_key(left: Request, right: Request) -> None:
    assert key(left) == key(right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (Request(sampling=Sampling(temperature=None)), Request(sampling=Sampling(temperature=0))),
        (Request(sampling=Sampling(temperature=0)), Request(sampling=Sampling(temperature=5e-324))),
        (Request(prompt=""), Request(prompt=None)),
        (Request(prompt="a"), Request(messages=(Message("user", "a"),))),
        (Request(stop=("a", "b")), Request(stop=("b", "a"))),
        (Request(stop=("ab",)), Request(stop=("a", "b"))),
        (Request(stop=('a","b',)), Request(stop=("a", "b"))),
        (Request(extra={"a": True}), Request(extra={"a": 1})),
        (Request(extra={"a": False}), Request(extra={"a": None})),
        (Request(extra={"a": "1"}), Request(extra={"a": 1})),
        (Request(extra={"a": None}), Request(extra={})),
        (Request(extra={"a": 2**53}), Request(extra={"a": 2**53 + 1})),
        (Request(extra={"a": [1, [2]]}), Request(extra={"a": [[1], 2]})),
        (Request(prompt="é"), Request(prompt="e\u0301")),
        (
            Request(response_format=ResponseFormat("choice", "a")),
            Request(response_format=ResponseFormat("choice", ("a",))),
        ),
    ],
)
def test_different_requests_have_different_keys(left: Request, right: Request) -> None:
    assert key(left) != key(right)


def test_a_key_that_is_kept_takes_no_more_room_than_it_has_bytes() -> None:
    tracemalloc.start()
    try:
        kept = [key(BASE) for _ in range(100)]
        taken = sum(trace.size for trace in tracemalloc.take_snapshot().traces if trace.size >= len(kept[0]))
    finally:
        tracemalloc.stop()
    assert taken <= 100 * (sys.getsizeof(kept[0]) + 16)


@pytest.mark.parametrize(
    ("request_", "short"),
    [
        (
            Request(prompt="hi", sampling=Sampling(temperature=0)),
            "a9dfa5771d1f4bc4ba8675d09a8c18d76431b91dc65f30ae8ed29a3856e6c3f7",
        ),
        (BASE, "462e1278af8fc1430a0b51570da15096072163400c061d4a78c8697b9d3e5d28"),
        (
            Request(
                messages=(Message("user", "é\n\x7f"),),
                sampling=Sampling(temperature=0.5, max_tokens=64, seed=1),
                stop=("a",),
                tool_choice="auto",
                extra={"b": 1.0, "a": [0.1, None]},
            ),
            "f1e34b0a08cb7c1b4e829855a8ac36ea0ad28062b415b00c32459ec268734f22",
        ),
        (
            Request(prompt="\ud800é", extra={"a": 2**64}),
            "e2482180e8a7e1865019514676a68e2516489d2994a4890f89777b90d6157acf",
        ),
    ],
)
def test_the_short_key_is_stable(request_: Request, short: str) -> None:
    """A change here makes every stored answer unreachable: raise FORMAT and say so in the changelog."""
    assert digest(key(request_)) == short


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(-(2.0**62), 2.0**62) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(prompt=st.text(), said=st.lists(st.text(), max_size=3), temperature=st.none() | st.floats(0, 100), extra=_JSON)
def test_a_key_is_json_in_the_one_form_that_it_has(
    prompt: str, said: list[str], temperature: float | None, extra: Any
) -> None:
    messages = tuple(Message("user", text, (ToolCall(text, text, text, 1),)) for text in said)
    made = key(
        Request(prompt=prompt, messages=messages, sampling=Sampling(temperature=temperature), extra={"x": extra})
    )
    assert orjson.dumps(orjson.loads(made), option=orjson.OPT_SORT_KEYS) == made


def test_what_is_written_as_it_is_holds_words_and_whole_numbers_only() -> None:
    """A fraction or a mapping may be written in several ways."""
    hints = typing.get_type_hints(Request)
    kinds = [hints[name] for name in _WORDS]
    seen = set()
    while kinds:
        kind = kinds.pop()
        if isinstance(kind, type) and issubclass(kind, Struct):
            kinds.extend(typing.get_type_hints(kind).values())
        elif parts := typing.get_args(kind):
            kinds.extend(part for part in parts if part is not ...)
        else:
            seen.add(kind)
    assert seen == {str, int, type(None)}
