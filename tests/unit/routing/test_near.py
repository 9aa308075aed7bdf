"""A mistyped model name is answered with those it was probably meant to be."""

from __future__ import annotations

import pytest

from polyroute.routing.near import NearNames

NAMES = ("meta-llama/Llama-3.1-8B-Instruct", "mistralai/Mistral-7B-v0.1", "microsoft/phi-2", "demo", "chat")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("demp", "demo"),
        ("DEMO", "demo"),
        ("Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-8B-Instruct"),
        ("meta-llama/llama-3.1-8b-instruct", "meta-llama/Llama-3.1-8B-Instruct"),
        ("phi-2", "microsoft/phi-2"),
        ("mistral-7b", "mistralai/Mistral-7B-v0.1"),
    ],
)
def test_the_nearest_name_comes_first(typed: str, meant: str) -> None:
    assert NearNames(NAMES).near(typed)[0] == meant


@pytest.mark.parametrize("typed", ["", "zzzzzz", "\n", "🦙" * 256])
def test_nothing_near_is_nothing(typed: str) -> None:
    assert NearNames(NAMES).near(typed) == ()


def test_at_most_three_are_named() -> None:
    assert len(NearNames(f"model-{i}" for i in range(50)).near("model-")) == 3


def test_many_names_and_a_hostile_one_are_no_trouble() -> None:
    names = NearNames(f"team/model-{i:05d}" for i in range(10_000))
    assert names.near("team/model-04x42")[0].startswith("team/model-0")
    for hostile in ("team/model-" * 20_000, "-" * 100_000, "team/model-00000" * 10):
        assert len(names.near(hostile)) <= 3
