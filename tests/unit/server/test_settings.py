"""Flags win over environment, environment over file; a bad value is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from polyroute.core.config import LocalConfig
from polyroute.server.settings import DEFAULT_MODEL, Address, Flags, SettingsError, settings


def test_without_anything_one_model_is_served_on_loopback() -> None:
    found = settings(Flags(), {})
    (model,) = found.config.models
    assert (model.id, model.type, found.config.effective_default) == (DEFAULT_MODEL, "local", DEFAULT_MODEL)
    assert (str(found.grpc), str(found.http), str(found.admin)) == (
        "127.0.0.1:50051",
        "127.0.0.1:8080",
        "127.0.0.1:50052",
    )
    assert found.cache_bytes is None


def test_the_environment_names_the_model_and_how_to_run_it() -> None:
    found = settings(Flags(), {"MODEL_ID": "org/model", "MODEL_DEVICE": "cpu", "MODEL_DTYPE": "float32"})
    (model,) = found.config.models
    assert isinstance(model, LocalConfig)
    assert (model.id, model.device, model.dtype, model.effective_source) == ("org/model", "cpu", "float32", "org/model")


def test_flags_win_over_the_environment() -> None:
    environ = {"POLYROUTE_GRPC_ADDRESS": "127.0.0.1:1", "POLYROUTE_HTTP_ADDRESS": "127.0.0.1:2", "MODEL_ID": "x"}
    found = settings(Flags(grpc_address="127.0.0.1:3", demo=True), environ)
    assert (found.grpc.port, found.http.port) == (3, 2)
    assert found.config.models[0].id == "demo"


def test_a_file_is_read_from_the_flag_or_the_environment(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(f"models:\n  - {{id: {name}, type: local}}\n")
    environ = {"POLYROUTE_CONFIG": str(tmp_path / "a"), "MODEL_ID": "x"}
    assert settings(Flags(), environ).config.models[0].id == "a"
    assert settings(Flags(config=tmp_path / "b"), environ).config.models[0].id == "b"


def test_an_empty_variable_is_an_unset_one() -> None:
    assert settings(Flags(), {"MODEL_ID": "", "POLYROUTE_CONFIG": ""}).config.models[0].id == DEFAULT_MODEL


@pytest.mark.parametrize(
    ("flags", "environ", "words"),
    [
        (Flags(), {"MODEL_DEVICE": "gpu"}, "MODEL_DEVICE: `gpu`"),
        (Flags(), {"MODEL_DTYPE": "int3"}, "MODEL_DTYPE: `int3`"),
        (Flags(), {"MODEL_ID": "a b"}, "MODEL_ID: `a b`: a name has"),
        (Flags(), {"POLYROUTE_CACHE_SIZE": "much"}, "POLYROUTE_CACHE_SIZE: `much` is no size"),
        (Flags(), {"POLYROUTE_CACHE_SIZE": "5"}, "at least 1MiB"),
        (Flags(), {"POLYROUTE_GRPC_ADDRESS": "50051"}, "POLYROUTE_GRPC_ADDRESS: `50051` is no address"),
        (Flags(http_address="localhost:99999"), {}, "--http-address: `localhost:99999`"),
        (Flags(http_address="::1:80"), {}, "--http-address: `::1:80`"),
        (Flags(demo=True, config=Path("x")), {}, "--demo and --config"),
    ],
)
def test_a_bad_value_is_named(flags: Flags, environ: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError, match=r".") as caught:
        settings(flags, environ)
    assert words in str(caught.value)


def test_addresses_of_both_families() -> None:
    six = Address.parse("[::1]:50051", "f")
    assert (six.host, six.port, str(six), six.loopback) == ("::1", 50051, "[::1]:50051", True)
    assert not Address.parse("0.0.0.0:0", "f").loopback
    assert Address.parse("localhost:1", "f").loopback


@pytest.mark.parametrize(
    "url", ["redis://h", "rediss://u:p@h:6380/2", "unix:///run/redis.sock", "redis://[::1]:6379/0"]
)
def test_redis_is_where_the_environment_says(url: str) -> None:
    found = settings(Flags(), {"POLYROUTE_REDIS_URL": url})
    assert found.redis_url is not None
    assert found.redis_url.get_secret_value() == url
    assert url not in repr(found)
    assert settings(Flags(), {}).redis_url is None


@pytest.mark.parametrize("url", ["h:6379", "http://h", "redis://", "redis://:secret@h:x", "redis://h:0", "unix://"])
def test_a_url_that_is_none_of_redis_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(SettingsError, match=r"POLYROUTE_REDIS_URL: is no URL of the form redis://") as raised:
        settings(Flags(), {"POLYROUTE_REDIS_URL": url})
    assert "secret" not in str(raised.value)


def test_redis_without_its_extra_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polyroute.server.settings.find_spec", lambda name: None)
    with pytest.raises(SettingsError, match="needs Polyroute's extra `redis`"):
        settings(Flags(), {"POLYROUTE_REDIS_URL": "redis://h"})


def test_the_log_is_as_flags_and_variables_say() -> None:
    found = settings(Flags(), {})
    assert (found.log_format, found.log_level) == ("auto", "info")
    found = settings(Flags(), {"POLYROUTE_LOG_FORMAT": "json", "POLYROUTE_LOG_LEVEL": "debug"})
    assert (found.log_format, found.log_level) == ("json", "debug")
    found = settings(Flags(log_format="text"), {"POLYROUTE_LOG_FORMAT": "json"})
    assert found.log_format == "text"
    with pytest.raises(SettingsError, match="POLYROUTE_LOG_FORMAT: `xml`; write one of auto, json, text"):
        settings(Flags(), {"POLYROUTE_LOG_FORMAT": "xml"})
    with pytest.raises(SettingsError, match="POLYROUTE_LOG_LEVEL: `loud`"):
        settings(Flags(), {"POLYROUTE_LOG_LEVEL": "loud"})


def test_the_file_is_watched_unless_told_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    path.write_text("models:\n  - {id: m, type: local}\n")
    found = settings(Flags(config=path), {})
    assert found.source is not None
    assert (found.source.path, found.watch) == (path, True)
    assert not settings(Flags(config=path), {"POLYROUTE_WATCH": "off"}).watch
    assert settings(Flags(config=path, watch=True), {"POLYROUTE_WATCH": "off"}).watch
    assert not settings(Flags(config=path, watch=False), {}).watch
    assert settings(Flags(demo=True), {}).source is None
    with pytest.raises(SettingsError, match="POLYROUTE_WATCH: `maybe`"):
        settings(Flags(), {"POLYROUTE_WATCH": "maybe"})


def test_the_state_database_is_a_file_of_the_users_or_the_one_that_is_named() -> None:
    assert (settings(Flags(), {}).state_url or "").endswith("/polyroute/state.db")
    assert settings(Flags(), {"POLYROUTE_STATE_URL": "postgresql://db/p"}).state_url == "postgresql://db/p"
    with pytest.raises(SettingsError, match="POLYROUTE_STATE_URL: `mysql` is neither sqlite nor postgresql"):
        settings(Flags(), {"POLYROUTE_STATE_URL": "mysql://db/p"})
