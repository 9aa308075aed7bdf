"""Lists of models that peers gave are used by others for a moment, and no longer."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from polyroute.backends.remote.lists import FRESH_S, Lists
from polyroute.backends.remote.peer import Peer
from polyroute.backends.remote.probe import ModelList, PeerFacts
from polyroute.core.config import RemoteConfig, SecretFile
from tests.clock import Clock

URL = "http://peer:8000"


def test_a_list_holds_for_a_moment_after_it_was_asked_for() -> None:
    clock, told = Clock(100.0), ModelList({})
    lists = Lists(clock=clock)
    lists.keep("a", told, asked_at=clock.now - FRESH_S / 2)
    assert lists.recent("a") is told
    assert lists.recent("b") is None
    clock.now += FRESH_S / 2
    assert lists.recent("a") is None
    assert len(lists) == 0


def test_a_later_list_takes_the_place_of_an_earlier_one() -> None:
    clock, later = Clock(100.0), ModelList({})
    lists = Lists(clock=clock)
    lists.keep("a", ModelList(), asked_at=clock.now)
    clock.now += FRESH_S / 2
    lists.keep("a", later, asked_at=clock.now)
    clock.now += FRESH_S / 2
    assert lists.recent("a") is later


def test_lists_of_many_peers_are_not_kept_for_long() -> None:
    clock = Clock(100.0)
    lists = Lists(clock=clock)
    for number in range(1000):
        lists.keep(number, ModelList(), asked_at=clock.now)
        clock.now += FRESH_S / 10
    assert len(lists) <= 11


def test_a_list_that_comes_late_is_none_for_others() -> None:
    clock = Clock(100.0)
    lists = Lists(clock=clock)
    lists.keep("slow", ModelList(), asked_at=clock.now - 2 * FRESH_S)
    assert lists.recent("slow") is None


def peer(id: str, url: str = URL, **options: object) -> Peer:
    return Peer(RemoteConfig.model_validate({"id": id, "type": "remote", "base_url": url, **options}), url)


@pytest.mark.parametrize(
    "options",
    [
        {"api_key": SecretStr("k")},
        {"api_key": SecretFile.model_validate({"file": "/run/secrets/key"})},
        {"headers": {"X-Tenant": "a"}},
        {"tls": {"verify": False}},
    ],
)
def test_peers_are_one_where_place_and_credentials_are_equal(options: dict[str, object]) -> None:
    assert peer("a", **options).same == peer("b", **options).same != peer("c").same


def test_peers_at_other_places_are_others() -> None:
    config = RemoteConfig(id="a", type="remote", base_urls=(URL,))
    others = [Peer(config, URL), Peer(config, "http://other:8000"), Peer(config, URL, "10.0.0.1")]
    assert len({one.same for one in others}) == 3
    assert Peer(config, URL + "/v1").same == others[0].same


def test_of_one_list_each_model_has_its_own_facts() -> None:
    told = ModelList({"a": {"id": "a", "version": "1", "max_model_len": 8}, "b": {"id": "b", "version": 7}})
    assert told.facts("a") == PeerFacts("openai", "1", 8)
    assert told.facts("b") == PeerFacts("generate"), "its version is no text"
    assert told.facts("c") == PeerFacts("openai", listed=False)
    assert ModelList().facts("a") == PeerFacts("generate")
