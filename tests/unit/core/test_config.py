"""What a configuration means as a whole: effective models, what differs between two, and a digest without secrets."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from polyroute.core.config import LIVE, Config, ConsoleConfig, LocalConfig, RemoteConfig, changed_options

LOCAL: dict[str, Any] = {"id": "a", "type": "local"}
REMOTE: dict[str, Any] = {"id": "b", "type": "remote", "base_url": "http://b:1"}


def config(*models: dict[str, Any], **more: Any) -> Config:
    return Config.model_validate({"models": models, **more})


def warm(config: Config) -> dict[str, int | None]:
    return {model.id: model.warm.min for model in config.effective_models if isinstance(model, LocalConfig)}


def test_the_default_is_warm_unless_it_says_otherwise() -> None:
    others = {"id": "c", "type": "local"}, {"id": "d", "type": "local", "warm": {"min": 1}}
    assert warm(config(LOCAL, *others, default_model="a")) == {"a": 1, "c": 0, "d": 1}
    assert warm(config({**LOCAL, "warm": {"min": 0}}, *others, default_model="a")) == {"a": 0, "c": 0, "d": 1}
    route = {"id": "r", "variants": [{"name": "x", "model": "a"}, {"name": "y", "model": "c"}]}
    assert warm(config(LOCAL, *others, default_model="r", routes=[route])) == {"a": 1, "c": 1, "d": 1}


def test_a_model_without_a_cache_of_its_own_has_the_files() -> None:
    own = {**REMOTE, "cache": {"mode": "always"}}
    models = config(LOCAL, own, cache={"mode": "off"}).effective_models
    assert [model.cache and model.cache.mode for model in models] == ["off", "always"]


def test_what_a_models_cache_does_not_say_is_as_the_file_says() -> None:
    own = {**REMOTE, "cache": {"mode": "always"}}
    (model,) = config(own, cache={"ttl": "1h", "tiers": ["memory"]}).effective_models
    assert model.cache is not None
    assert (model.cache.mode, model.cache.ttl) == ("always", 3600)
    assert list(model.cache.tiers or ()) == ["memory"]


def test_options_that_differ_are_named() -> None:
    one, other, local = config(REMOTE, {**REMOTE, "max_queue": 1, "api": "openai"}, LOCAL).models
    assert changed_options(one, one) == frozenset()
    assert changed_options(one, other) == {"max_queue", "api"}
    assert {"type", "id", "source"} <= changed_options(one, local) | {"source"}
    assert not changed_options(one, local) <= LIVE


def test_live_options_exist() -> None:
    """A misspelt one would rebuild backends for nothing."""
    known = {name for model in config(LOCAL, REMOTE).models for name in type(model).model_fields}
    assert known >= LIVE


def test_the_digest_tells_configurations_apart_and_secrets_not() -> None:
    def digest(**more: Any) -> str:
        return config({**REMOTE, **more}).digest

    assert digest() == digest(max_queue=64)  # it is of what is meant, not of how it is written
    assert digest() != digest(max_queue=65)
    assert digest(api_key="one") == digest(api_key="two") != digest()
    assert digest(headers={"x": "one"}) == digest(headers={"x": "two"}) != digest(headers={"y": "one"})


@pytest.mark.parametrize(
    "url",
    ["http://10.0.0.1", "https://[::1]:8000/v1", "dns+http://a-b.c_d.:1", "http://bücher.example:80", "http://p:65535"],
)
def test_a_url_of_a_host_that_there_may_be_is_valid(url: str) -> None:
    assert RemoteConfig.model_validate({**REMOTE, "base_url": url}).base_urls == (url,)


@pytest.mark.parametrize("said", [False, "off"])
def test_nobody_operates_where_it_is_off_however_yaml_reads_the_word(said: object) -> None:
    assert ConsoleConfig.model_validate({"operate": said}).operate == "off"


@pytest.mark.parametrize("said", [True, "on", "everybody", None, 1])
def test_nothing_else_is_taken_for_a_rule_of_who_may_operate(said: object) -> None:
    with pytest.raises(ValidationError, match="operate"):
        ConsoleConfig.model_validate({"operate": said})


def test_by_default_this_machine_operates() -> None:
    assert ConsoleConfig().operate == "local"
