"""Every mistake in a `models.yaml` is told with its file, line and path."""

from __future__ import annotations

from pathlib import Path

import pytest

from polyroute.core.config import (
    BreakerConfig,
    ConcurrencyConfig,
    LocalConfig,
    RemoteConfig,
    SemanticConfig,
    TierConfig,
)
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
        (LOCAL + "    kv_cache_memory: 2 lots\n", "models.yaml:4: models[0].kv_cache_memory: is no size; write one"),
        (LOCAL + "    kv_cache_memory: much\n", "models.yaml:4: models[0].kv_cache_memory: is no size; write one"),
        (LOCAL + "    max_sequences: 0\n", "models.yaml:4: models[0].max_sequences: input should be greater"),
        (REMOTE + "    kv_cache_memory: 1GiB\n", "models.yaml:5: models[0].kv_cache_memory: unknown key"),
        (REMOTE + "routes:\n  - id: r\n", "models.yaml:6: routes[0]: `model` or `variants` is required"),
        (
            REMOTE + "routes:\n  - id: r\n    model: m\n    variants: [{name: a, model: m}]\n",
            "models.yaml:6: routes[0]: give `model` or `variants`, not both",
        ),
        (
            REMOTE + "routes:\n  - {id: r, model: m}\n  - {id: s, model: r}\n",
            "models.yaml:7: routes[1].model: `r` is no model of this file",
        ),
        (
            REMOTE + "routes:\n  - id: r\n    model: m\n    sticky_by: [tenant]\n",
            "models.yaml:8: routes[0].sticky_by[0]: `tenant` is none of user, session, affinity_key, request",
        ),
        (
            REMOTE + "routes:\n  - id: r\n    model: m\n    sticky_by: [user, 'header:x tenant']\n",
            "models.yaml:8: routes[0].sticky_by[1]: `x tenant` names no header",
        ),
        (
            REMOTE + "routes:\n  - id: r\n    model: m\n    sticky_by: ['header:trace-bin']\n",
            "models.yaml:8: routes[0].sticky_by[0]: `trace-bin` is a header of gRPC's own, or binary",
        ),
        (REMOTE + "    tls: {min_version: 1}\n", "models.yaml:5: models[0].tls.min_version: unknown key"),
        (REMOTE + "    retries: 11\n", "models.yaml:5: models[0].retries: input should be less than or equal to 10"),
        (
            REMOTE + "    retry_budget: {share: 2}\n",
            "models.yaml:5: models[0].retry_budget.share: input should be less",
        ),
        (REMOTE + "    breaker:\n", "models.yaml:5: models[0].breaker: is empty; write `off`, or what it should be"),
        (REMOTE + "    breaker: {faults: 3}\n", "models.yaml:5: models[0].breaker.faults: unknown key"),
        (
            REMOTE + "    breaker: {open: 5s, max_open: 2s}\n",
            "models[0].breaker: max_open (2 s) is less than open (5 s)",
        ),
        (REMOTE + "    slow_start: 0\n", "models.yaml:5: models[0].slow_start: input should be greater than 0"),
        (REMOTE + "    hedge: {}\n", "models.yaml:5: models[0].hedge.after: is required"),
        (REMOTE + "    hedge: {after: p100}\n", "models.yaml:5: models[0].hedge.after: `p100` is no duration"),
        (REMOTE + "    hedge: {after: -1}\n", "models[0].hedge.after: `-1` is neither a time such as 300ms nor a perc"),
        (LOCAL + "    probe_interval: 5s\n", "models.yaml:4: models[0].probe_interval: unknown key"),
        (REMOTE.replace("http", "dns+ftp"), "models[0].base_url: `dns+ftp://peer:1` is no URL of the form"),
        (
            REMOTE.replace("http://peer:1", "dns+http://n:99999"),
            "models.yaml:4: models[0].base_url: `dns+http://n:9",
        ),
        (
            REMOTE.replace("peer:1", "n:abc"),
            "models.yaml:4: models[0].base_url: `http://n:abc`: Port could not be cast",
        ),
        (REMOTE.replace("peer:1", "n:0"), "models.yaml:4: models[0].base_url: `http://n:0`: no peer listens on port 0"),
        (REMOTE.replace("peer:1", ":80"), "models.yaml:4: models[0].base_url: `http://:80`: `` can be no host's name"),
        (REMOTE.replace("peer:1", "a..b"), "models.yaml:4: models[0].base_url: `http://a..b`: `a..b` can be no host's"),
        (REMOTE.replace("peer:1", "a" * 64), f"models[0].base_url: `http://{'a' * 64}`: `{'a' * 64}` can be no host's"),
        (REMOTE.replace("peer:1", "a.b." * 64), "can be no host's name: that has 1 to 253 characters"),
        (REMOTE.replace("peer:1", "[::g]:1"), "models.yaml:4: models[0].base_url: `http://[::g]:1`: "),
        (REMOTE.replace("peer:1", "[::1"), "models.yaml:4: models[0].base_url: `http://[::1`: Invalid IPv6 URL"),
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


@pytest.mark.parametrize("url", ["http://me:hunter2@peer:1", "ftp://hunter2@peer", "http://peer:1/v1?key=hunter2"])
def test_a_key_in_a_url_is_refused_and_not_told(url: str) -> None:
    [found] = problems(REMOTE.replace("http://peer:1", "${URL}"), {"URL": url})
    assert "models[0].base_url: has a user, a password or a `?` in it" in found
    assert "hunter2" not in found


@pytest.mark.parametrize("value", ["2024-99-99", "=", "<<"])
def test_a_variable_that_yaml_cannot_read_is_a_mistake_and_not_told(value: str) -> None:
    [found] = problems(REMOTE + "    version: ${V}\n", {"V": value})
    assert "models.yaml:5: models[0].version: what the environment has of `${V}` cannot be read" in found
    assert value not in found
    assert parse_config(REMOTE + "    version: '${V}'\n", "f", {"V": value}).models[0].version == value


@pytest.mark.parametrize("host", ["http://router", "router:8080", "10.0.0.1:80", "a b", ""])
def test_a_host_of_the_console_is_a_bare_name(host: str) -> None:
    [found] = problems(REMOTE + f"console: {{operate: all, hosts: ['{host}']}}\n")
    assert f"models.yaml:5: console.hosts[0]: `{host}` is no host's name or address" in found


def test_all_problems_are_told_at_once_in_the_order_of_the_file() -> None:
    found = problems(REMOTE + "    max_queue: -1\n    colour: red\n    timeout: x\n")
    assert [problem.split(":")[1] for problem in found] == ["5", "6", "7"]


def test_what_cannot_be_read_does_not_hide_the_rest() -> None:
    found = problems(REMOTE + "    api_key: hunter2\n    max_queue: -1\n")
    assert [problem.split(":")[1] for problem in found] == ["5", "6"]
    twins = "routes:\n  - id: r\n    variants: [{name: a, model: m}, {name: a, model: m}]\n"
    assert "two variants" in problems(REMOTE + "    api_key: x\n" + twins)[1]


def test_a_route_of_one_model_has_a_short_form() -> None:
    [route] = parse_config(REMOTE + "routes: [{id: fast, model: m}]\n", "models.yaml", {}).routes
    assert (route.id, route.models, route.variants) == ("fast", ("m",), ())


def test_a_route_may_be_keyed_on_headers() -> None:
    text = REMOTE + "routes: [{id: fast, model: m, sticky_by: ['header:X-Tenant', user, request]}]\n"
    [route] = parse_config(text, "models.yaml", {}).routes
    assert route.sticky_by == ("header:x-tenant", "user", "request")


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
    keys += "    cuda_graphs: off\n"
    model = parse_config(LOCAL + keys, "f", {}).models[0]
    assert isinstance(model, LocalConfig)
    assert (model.quantization, model.max_batch_tokens, model.kv_cache_memory) == ("int4", 16, 2 * 1024**3)
    assert (model.max_sequences, model.cuda_graphs) == (3, False)
    unset = parse_config(LOCAL, "f", {}).models[0]
    assert isinstance(unset, LocalConfig)
    chosen_by_the_engine = (unset.max_batch_tokens, unset.kv_cache_memory, unset.max_sequences)
    assert unset.cuda_graphs
    assert (unset.quantization, *chosen_by_the_engine) == (None, None, None, None)


@pytest.mark.parametrize(
    ("written", "least", "most"), [("7", 7, 7), ("auto", 1, 512), ("{min: 4}", 4, 512), ("{min: 4, max: 9}", 4, 9)]
)
def test_a_peers_concurrency_is_a_number_or_bounds(written: str, least: int, most: int) -> None:
    given = parse_config(f"{REMOTE}    max_concurrency: {written}\n", "f", {}).models[0].max_concurrency
    assert given == ConcurrencyConfig(min=least, max=most)


@pytest.mark.parametrize(
    ("model", "written", "expected"),
    [
        (REMOTE, "fast", ": `fast` is none of: a number from 1, auto, {min: N, max: N}"),
        (REMOTE, "0", ": `0` is none of"),
        (REMOTE, "2.5", ": `2.5` is none of"),
        (REMOTE, "true", ": `True` is none of"),
        (REMOTE, "{min: 9, max: 3}", ": min is 9, more than max, which is 3"),
        (REMOTE, "{min: 0}", ".min: input should be greater than or equal to 1"),
        (REMOTE, "{most: 3}", ".most: unknown key"),
        (LOCAL, "auto", ": only a remote model's adapts; a local one follows what its engine runs at once"),
        (LOCAL, "0", ": input should be greater than or equal to 1"),
    ],
)
def test_a_concurrency_that_makes_no_sense_is_told(model: str, written: str, expected: str) -> None:
    (problem,) = problems(f"{model}    max_concurrency: {written}\n")
    assert f"models[0].max_concurrency{expected}" in problem


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


def test_the_semantic_tier_is_off_unless_it_is_asked_for() -> None:
    config = parse_config(REMOTE + "cache:\n  semantic: {mode: off}\n", "models.yaml", {})
    (model,) = config.effective_models
    assert model.cache is not None
    assert model.cache.semantic == SemanticConfig(mode="off", threshold=0.95, embedder="minilm", max_entries=2000)
    with pytest.raises(ConfigError) as error:
        parse_config(REMOTE + "cache:\n  semantic: {threshold: 0.4, max_entries: 10001}\n", "models.yaml", {})
    paths = [problem.path for problem in error.value.problems]
    assert paths == ["cache.semantic.max_entries", "cache.semantic.threshold"]


def test_a_warm_pool_has_bounds_that_fit_each_other() -> None:
    local = "models:\n  - id: m\n    type: local\n    warm: "
    config = parse_config(local + "{min: 1, max: 3, idle_unload: 5m}\nmemory_budget: 12GiB\n", "f", {})
    model = config.models[0]
    assert isinstance(model, LocalConfig)
    assert (model.warm.min, model.warm.max, model.warm.idle_unload) == (1, 3, 300)
    assert config.memory_budget == 12 << 30
    assert problems(local + "{min: 2, max: 1}\n") == [
        "models.yaml:4: models[0].warm: `min` is 2, more than `max`, which is 1",
    ]
    assert "memory_budget" in problems(local + "{min: 1}\nmemory_budget: 1MiB\n")[0]


def test_who_does_not_wait_for_a_cold_model_has_another() -> None:
    route = REMOTE + "routes:\n  - id: r\n    variants: [{name: a, model: m}]\n    when_cold: fallback\n"
    assert "`when_cold: fallback` needs a `fallback`" in problems(route)[0]


def test_what_keeps_calls_going_is_on_by_default_and_can_be_turned_off() -> None:
    model = parse_config(REMOTE, "f", {}).models[0]
    assert (model.retries, model.breaker, model.slow_start, model.hedge) == (2, BreakerConfig(), 10, None)
    off = parse_config(REMOTE + "    breaker: off\n    slow_start: 'off'\n    hedge: off\n    retries: 0\n", "f", {})
    assert (off.models[0].breaker, off.models[0].slow_start, off.models[0].hedge) == (None, None, None)


@pytest.mark.parametrize(("written", "read"), [("300ms", 0.3), ("2", 2.0), ("p95", "p95"), ("p5", "p5")])
def test_a_hedge_comes_after_a_time_or_a_percentile(written: str, read: float | str) -> None:
    model = parse_config(REMOTE + f"    hedge: {{after: {written}}}\n", "f", {}).models[0]
    assert model.hedge is not None
    assert model.hedge.after == read


def test_replicas_may_be_the_addresses_of_a_name() -> None:
    model = parse_config(REMOTE.replace("http", "dns+https"), "f", {}).models[0]
    assert isinstance(model, RemoteConfig)
    assert model.base_urls == ("dns+https://peer:1",)


def tiers_of(text: str, environ: dict[str, str] | None = None) -> dict[str, TierConfig] | None:
    cache = parse_config(REMOTE + f"    cache: {{tiers: {text}}}\n", "f", environ or {}).models[0].cache
    assert cache is not None
    return None if cache.tiers is None else dict(cache.tiers)


def test_tiers_are_a_list_or_a_mapping() -> None:
    assert tiers_of("[memory, disk]") == {"memory": TierConfig(), "disk": TierConfig()}
    assert tiers_of("{memory: {ttl: 5m}, disk: }") == {"memory": TierConfig(ttl=300), "disk": TierConfig()}
    file = parse_config(REMOTE + "cache: {tiers: {memory: {size: 2MiB}, disk: {size: 1GiB, ttl: 1d}}}\n", "f", {})
    assert (file.cache.size("memory"), file.cache.size("disk"), file.cache.size("redis")) == (2**21, 2**30, None)
    redis = {"POLYROUTE_REDIS_URL": "redis://h"}
    assert tiers_of("[redis]", redis) == {"redis": TierConfig()}


@pytest.mark.parametrize(
    ("tiers", "message"),
    [
        ("[memory, flash]", "`flash` is no tier; there are memory, disk, redis"),
        ("{flash: {ttl: 1m}}", "`flash` is no tier; there are memory, disk, redis"),
        ("[memory, memory]", "a tier is named twice"),
        ("[]", "names no tier; write `mode: off` to keep nothing"),
        ("", "is empty; name some of memory, disk, redis"),
        ("disk", "`disk` is no list of tiers, such as [memory, disk]"),
        ("{memory: {ttl: 0s}}", "greater than 0"),
        ("{memory: {room: 1}}", "unknown key"),
        ("{disk: {size: 1GiB}}", "`tiers.disk.size` belongs to the file's own `cache`: all models share the tier"),
        ("[redis]", "`redis` is named, and POLYROUTE_REDIS_URL does not say where it is"),
    ],
)
def test_tiers_that_make_no_sense_are_named(tiers: str, message: str) -> None:
    found = problems(REMOTE + f"    cache: {{tiers: {tiers}}}\n")
    assert len(found) == 1
    assert "models.yaml:5: models[0].cache" in found[0]
    assert message in found[0]


def test_the_size_of_redis_is_its_own_affair() -> None:
    (found,) = problems(REMOTE + "cache: {tiers: {redis: {size: 1GiB}}}\n")
    assert "Redis bounds itself; set its `maxmemory`" in found


def test_every_planned_key_is_refused_by_name() -> None:
    for key, sections in LATER.items():
        if sections == ("models",):
            text = REMOTE + f"    {key}: 1\n"
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


ROUTE = REMOTE + "routes:\n  - id: chat\n    variants: [{name: a, model: m}, {name: b, model: m}]\n"
LAYERED = (
    ROUTE
    + "    layer: {name: tone, slice: [0, 0.6]}\n  - id: talk\n    variants: [{name: a, model: m}]\n"
    + "    layer: {name: tone, slice: [%s]}\n    sticky_by: [%s]\n"
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ROUTE + "    control: c\n", "models.yaml:6: routes[0]: `control` is `c`, which is none of the variants"),
        (
            REMOTE + "routes:\n  - {id: chat, variants: [{name: (holdout), model: m}]}\n",
            "models.yaml:6: routes[0]: a variant is named `(holdout)`; records name those kept out like that",
        ),
        (ROUTE + "    holdout: 1\n", "models.yaml:8: routes[0].holdout: input should be less than 1"),
        (ROUTE + "    holdout: 100%\n", "models.yaml:8: routes[0].holdout: input should be less than 1"),
        (ROUTE + "    shadow: {model: m}\n", "models.yaml:8: routes[0].shadow: must be a list"),
        (
            ROUTE + "    layer: {name: tone, slice: [0.5, 0.2]}\n",
            "models.yaml:8: routes[0].layer.slice: [0.5, 0.2] is no part of [0, 1]; write one such as [0, 0.5]",
        ),
        (
            REMOTE + "routes:\n  - {id: chat, model: m, holdout: 0.1}\n",
            "models.yaml:6: routes[0]: `holdout` and `layer` keep keys out of an experiment; there is none without",
        ),
        (
            LAYERED % ("0.5, 1", "user, session, affinity_key"),
            "models.yaml:11: routes[1].layer.slice: overlaps that of `chat`, whose layer it is",
        ),
        (
            LAYERED % ("0.6, 1", "user"),
            "models.yaml:11: routes[1].layer: needs the `sticky_by` of `chat`, which shares it: [user, session, affini",
        ),
    ],
)
def test_an_experiment_that_makes_no_sense(text: str, expected: str) -> None:
    found = problems(text)
    assert any(problem.startswith(expected) for problem in found), found


def test_routes_may_share_a_layer_side_by_side() -> None:
    config = parse_config(LAYERED % ("0.6, 1", "user, session, affinity_key"), "f", {})
    assert [route.layer.slice for route in config.routes if route.layer] == [(0, 0.6), (0.6, 1)]


def test_stale_answers_need_a_time_after_which_they_are_stale() -> None:
    text = REMOTE + "    cache:\n      ttl: 1h\n  - id: n\n    type: remote\n    base_url: http://n:1\n"
    stale = "cache:\n  stale_while_revalidate: 10m\n  stale_if_error: 1d\n"
    message = "needs a `ttl`, after which answers are stale; `n` has none"
    assert problems(text + stale) == [
        f"models.yaml:{line}: cache.{key}: {message}"
        for line, key in zip((11, 12), ("stale_while_revalidate", "stale_if_error"), strict=True)
    ]
    own = "    cache:\n      stale_if_error: 1d\n"
    assert problems(text + own) == [f"models.yaml:11: models[1].cache.stale_if_error: {message}"]
    config = parse_config(text + stale + "  ttl: 2h\n", "models.yaml", {})
    caches = [model.cache for model in config.effective_models if model.cache is not None]
    assert [(cache.ttl, cache.stale_s, cache.coalesce) for cache in caches] == [
        (3600, 86400, True),
        (7200, 86400, True),
    ]


def test_sharing_runs_between_machines_needs_what_they_share() -> None:
    redis = {"POLYROUTE_REDIS_URL": "redis://r"}
    text = REMOTE + "cache:\n  coalesce: fleet\n"
    (config, *_) = parse_config(text, "models.yaml", redis).effective_models
    assert config.cache is not None
    assert config.cache.coalesce == "fleet"
    unreachable = "`fleet` needs a Redis, and POLYROUTE_REDIS_URL does not say where it is"
    assert problems(text) == [f"models.yaml:6: cache.coalesce: {unreachable}"]
    near = text + "  tiers: [memory, disk]\n"
    assert problems(near, redis) == [
        "models.yaml:6: cache.coalesce: `fleet` needs the tier `redis`, and `m` does without"
    ]
    bad = REMOTE + "cache: {coalesce: sometimes}\n"
    assert problems(bad) == ["models.yaml:5: cache.coalesce: `sometimes` is none of true, false and fleet"]
