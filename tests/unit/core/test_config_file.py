"""Every mistake in a `models.yaml` is told with its file, line and path."""

from __future__ import annotations

from pathlib import Path

import pytest

from polyroute.core.config import LocalConfig, RemoteConfig
from polyroute.core.config_file import LATER, ConfigError, parse_config, read_config

SHORTEST = """\
default_model: mistralai/Mistral-7B-v0.1
models:
  - id: mistralai/Mistral-7B-v0.1
    type: local
  - id: deepseek-ai/DeepSeek-R1
    type: remote
    base_url: http://deepseek-node:8000
  - id: microsoft/phi-2
    type: remote
    base_url: http://phi2-node:8000
"""

REMOTE = "models:\n  - id: m\n    type: remote\n    base_url: http://peer:1\n"
LOCAL = "models:\n  - id: m\n    type: local\n"


def problems(text: str, environ: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "models.yaml", environ or {})
    return [str(problem) for problem in caught.value.problems]


def test_the_shortest_form_is_valid() -> None:
    config = parse_config(SHORTEST, "models.yaml", {})
    assert [type(model) for model in config.models] == [LocalConfig, RemoteConfig, RemoteConfig]
    assert config.effective_default == "mistralai/Mistral-7B-v0.1"
    remote = config.models[1]
    assert isinstance(remote, RemoteConfig)
    assert remote.base_urls == ("http://deepseek-node:8000",)


def test_the_only_model_is_the_default() -> None:
    assert parse_config(REMOTE, "f", {}).effective_default == "m"
    assert parse_config(SHORTEST.partition("\n")[2], "f", {}).effective_default is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "models.yaml:1: the file is empty; it needs at least `models:`"),
        ("models: [", "models.yaml:2: is not YAML"),
        ("models: " + "[" * 3000, "models.yaml:1: is nested too deeply"),
        ("models: " + "[" * 300_000 + "]" * 300_000, "models.yaml:1: is nested too deeply"),
        ("models:\n\t- id: x", "models.yaml:2: is not YAML"),
        ("- a\n- b\n", "models.yaml:1: input should be a valid dictionary"),
        ("models: []\n", "models.yaml:1: models: needs at least 1 entry"),
        ("default_model: m\n", "models.yaml:1: models: is required"),
        (REMOTE + "    colour: red\n", "models.yaml:5: models[0].colour: unknown key"),
        (REMOTE + "colour: red\n", "models.yaml:5: colour: unknown key"),
        (REMOTE + "    id: n\n", "models.yaml:5: models[0].id: is given twice, first on line 2"),
        (REMOTE + "  - id: m\n    type: local\n", "models.yaml:5: models[1].id: `m` is the name of an earlier model"),
        (REMOTE + "default_model: n\n", "models.yaml:5: default_model: `n` is no model or route of this file"),
        (
            "models:\n  - id: m\n    type: cloud\n",
            "models.yaml:2: models[0]: `type` must be local or remote, not `cloud`",
        ),
        ("models:\n  - id: m\n", "models.yaml:2: models[0]: `type` must be local or remote"),
        ("models:\n  - id: m\n    type: remote\n", "models.yaml:2: models[0].base_urls: `base_url` or `base_urls` is"),
        (REMOTE.replace("http", "ftp"), "models.yaml:4: models[0].base_url: `ftp://peer:1` is no URL of the form"),
        (REMOTE.replace(" m\n", ' "a b"\n'), "models.yaml:2: models[0].id: a name has 1 to 256 characters"),
        (REMOTE + "    timeout: 15q\n", "models.yaml:5: models[0].timeout: `15q` is no duration"),
        (REMOTE + "    timeout: -1\n", "models.yaml:5: models[0].timeout: input should be greater than 0"),
        (REMOTE + "    max_queue: many\n", "models.yaml:5: models[0].max_queue: input should be a valid integer"),
        (REMOTE + "    api_key: hunter2\n", "models.yaml:5: models[0].api_key: a secret does not belong here"),
        (REMOTE + "    api_key: ${KEY}\n", "models.yaml:5: models[0].api_key: the environment has no KEY"),
        (REMOTE + "    version: !!python/object:os.system x\n", "the tag"),
        (LOCAL + "    quantization: int2\n", "models.yaml:4: models[0].quantization: input should be 'int8' or 'int4'"),
        (LOCAL + "    max_batch_tokens: 15\n", "models.yaml:4: models[0].max_batch_tokens: input should be greater"),
        (LOCAL + "    kv_cache_memory: 1MiB\n", "models.yaml:4: models[0].kv_cache_memory: input should be greater"),
        (LOCAL + "    kv_cache_memory: 2 lots\n", "models.yaml:4: models[0].kv_cache_memory: "),
        (LOCAL + "    max_sequences: 0\n", "models.yaml:4: models[0].max_sequences: input should be greater"),
        (REMOTE + "    kv_cache_memory: 1GiB\n", "models.yaml:5: models[0].kv_cache_memory: unknown key"),
        (REMOTE + "    retries: 2\n", "models.yaml:5: models[0].retries: is not served by this version yet"),
        (REMOTE + "routes:\n  - id: r\n", "models.yaml:6: routes[0].variants: is required"),
        (
            REMOTE + "routes:\n  - id: r\n    variants: [{name: a, model: n}]\n",
            "models.yaml:7: routes[0].variants[0].model: `n` is no model of this file",
        ),
        (
            REMOTE + "routes:\n  - id: r\n    variants: [{name: a, model: m, weight: 0}]\n",
            "models.yaml:6: routes[0]: every weight is 0: no variant would get traffic",
        ),
        (
            REMOTE + "routes:\n  - id: r\n    variants: [{name: a, model: m}]\n    fallback: [n]\n",
            "models.yaml:8: routes[0].fallback[0]: `n` is no model or route of this file",
        ),
    ],
)
def test_a_mistake_is_told_with_its_place(text: str, expected: str) -> None:
    found = problems(text)
    assert any(expected in problem for problem in found), found


def test_all_problems_are_told_at_once_in_the_order_of_the_file() -> None:
    found = problems(REMOTE + "    max_queue: -1\n    colour: red\n    timeout: x\n")
    assert [problem.split(":")[1] for problem in found] == ["5", "6", "7"]


def test_what_cannot_be_read_does_not_hide_the_rest() -> None:
    found = problems(REMOTE + "    api_key: hunter2\n    max_queue: -1\n")
    assert [problem.split(":")[1] for problem in found] == ["5", "6"]
    twins = "routes:\n  - id: r\n    variants: [{name: a, model: m}, {name: a, model: m}]\n"
    assert "two variants" in problems(REMOTE + "    api_key: x\n" + twins)[1]


def test_fallbacks_must_not_go_in_a_circle() -> None:
    route = "  - id: {0}\n    variants: [{{name: a, model: m}}]\n    fallback: [{1}]\n"
    text = REMOTE + "routes:\n" + route.format("r", "s") + route.format("s", "t") + route.format("t", "r")
    assert "routes[0].fallback: goes in a circle: r -> s -> t -> r" in problems(text)[0]


def test_an_alias_to_itself_is_refused_rather_than_followed() -> None:
    assert "an alias refers to what it stands in" in problems("models: &a\n  - *a\n")[0]


def test_variables_come_from_the_environment_with_their_type() -> None:
    text = REMOTE + "    max_queue: ${QUEUE}\n    api_key: ${KEY}\n    headers: {x-team: '${TEAM}'}\n"
    model = parse_config(text, "f", {"QUEUE": "7", "KEY": "0123", "TEAM": "a: b"}).models[0]
    assert isinstance(model, RemoteConfig)
    assert model.max_queue == 7
    assert model.headers["x-team"].get_secret_value() == "a: b"
    assert "0123" not in repr(model)


def test_the_engine_of_a_local_model_is_bounded_as_the_file_says() -> None:
    keys = "    quantization: int4\n    max_batch_tokens: 16\n    kv_cache_memory: 2GiB\n    max_sequences: 3\n"
    model = parse_config(LOCAL + keys, "f", {}).models[0]
    assert isinstance(model, LocalConfig)
    assert (model.quantization, model.max_batch_tokens, model.kv_cache_memory) == ("int4", 16, 2 * 1024**3)
    assert model.max_sequences == 3
    unset = parse_config(LOCAL, "f", {}).models[0]
    assert isinstance(unset, LocalConfig)
    chosen_by_the_engine = (unset.max_batch_tokens, unset.kv_cache_memory, unset.max_sequences)
    assert (unset.quantization, *chosen_by_the_engine) == (None, None, None, None)


def test_a_variable_cannot_bring_in_structure() -> None:
    text = REMOTE.replace(" m\n", " ${NAME}\n")
    assert "a name has" in problems(text, {"NAME": "m\n    type: local"})[0]


def test_durations_and_sizes_have_units() -> None:
    config = parse_config(REMOTE + "    timeout: 1h30m\nlimits: {max_prompt_bytes: 2MiB}\n", "f", {})
    assert config.models[0].timeout == 5400
    assert config.limits.max_prompt_bytes == 2 * 1024 * 1024


def test_off_is_a_cache_mode_although_yaml_reads_it_as_false() -> None:
    model = parse_config(REMOTE + "    cache: {mode: off}\n", "f", {}).models[0]
    assert model.cache is not None
    assert model.cache.mode == "off"


def test_every_planned_key_is_refused_by_name() -> None:
    for key, sections in LATER.items():
        if sections == ("models",):
            text = REMOTE + f"    {key}: 1\n"
        elif sections == ("models", "warm"):
            text = f"models:\n  - id: m\n    type: local\n    warm: {{{key}: 1}}\n"
        elif sections == ("cache",):
            text = REMOTE + f"cache: {{{key}: 1}}\n"
        elif sections == ("routes",):
            text = REMOTE + f"routes:\n  - id: r\n    variants: [{{name: a, model: m}}]\n    {key}: 1\n"
        else:
            text = REMOTE + f"{key}: 1\n"
        assert any(f"{key}: is not served by this version yet" in p for p in problems(text)), key


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_config(tmp_path / "none.yaml", {})
    (tmp_path / "bin.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_config(tmp_path / "bin.yaml", {})


def test_the_file_of_a_secret_must_hold_one(tmp_path: Path) -> None:
    config, key = tmp_path / "models.yaml", tmp_path / "key"
    config.write_text(REMOTE + f"    api_key: {{file: {key}}}\n")
    for content, why in ((None, "cannot be read: No such file or directory"), ("\n", "is empty")):
        if content is not None:
            key.write_text(content)
        with pytest.raises(ConfigError) as caught:
            read_config(config, {})
        assert [str(p) for p in caught.value.problems] == [f"{config}:5: models[0].api_key.file: `{key}` {why}"]
    key.write_text("sekret")
    model = read_config(config, {}).models[0]
    assert isinstance(model, RemoteConfig)
    assert "sekret" not in repr(model)
