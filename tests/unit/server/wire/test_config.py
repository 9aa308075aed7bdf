"""The configuration as operators see it: complete, readable, and without a secret."""

from __future__ import annotations

from pathlib import Path

import yaml

from polyroute.core.config import Config
from polyroute.core.config_file import usable_config
from polyroute.server.wire.config import shown

FILE = b"""
default_model: m
models:
  - id: m
    type: remote
    base_url: http://peer:8000
    api_key: ${KEY}
    headers: {X-Team: "${HEADER}"}
    timeout: 1m30s
  - {id: demo, type: local, kv_cache_memory: 2GiB}
"""

ROUTES = b"""
models:
  - {id: a, type: remote, base_url: http://a:8000, breaker: off, slow_start: off, hedge: {after: p95}}
  - {id: b, type: local, cuda_graphs: off, quantization: int8, warm: {max: 2, idle_unload: 1h}, cache: {mode: off}}
default_model: r
memory_budget: 2GiB
cache: {ttl: 1d, tiers: {memory: {size: 64MiB}, disk: {ttl: 1h}}}
routes:
  - id: r
    variants: [{name: old, model: a}, {name: new, model: b, weight: 0}]
    rollout:
      from: old
      to: new
      steps: [{weight: 5%, hold: 10m}]
      guardrails: {errors: off, first_token: {tolerance: 0.5}}
      consecutive_failures: off
"""


def config() -> Config:
    return usable_config(FILE, "models.yaml", {"KEY": "sekret-key", "HEADER": "sekret-header"})


def test_what_the_file_says_is_shown_and_no_secret() -> None:
    text = shown(config(), defaults=False)
    assert "sekret" not in text
    said = yaml.safe_load(text)
    remote, local = said["models"]
    assert said["default_model"] == "m"
    assert remote["base_urls"] == ["http://peer:8000"]
    assert set(remote["api_key"]) == set(remote["headers"]["X-Team"]) == {"*"}
    assert remote["timeout"] == 90
    assert local["kv_cache_memory"] == 2 * 2**30
    assert "retries" not in remote


def test_with_defaults_what_it_leaves_out_is_shown_too() -> None:
    text = shown(config(), defaults=True)
    assert "sekret" not in text
    said = yaml.safe_load(text)
    assert said["models"][0]["retries"] == 2
    assert said["limits"]["max_messages"] == 4096
    assert said["console"]["operate"] == "local"


def test_what_is_shown_reads_as_a_file_that_says_the_same() -> None:
    config = usable_config(ROUTES, "models.yaml", {})
    text = shown(config, defaults=False)
    assert usable_config(text.encode(), "shown.yaml", {}) == config


def test_what_is_off_is_shown_as_off() -> None:
    said = yaml.safe_load(shown(usable_config(ROUTES, "models.yaml", {}), defaults=True))
    remote, local = said["models"]
    assert (remote["breaker"], remote["slow_start"], local["hedge"]) == ("off", "off", "off")
    rollout = said["routes"][0]["rollout"]
    assert (rollout["from"], rollout["consecutive_failures"], rollout["guardrails"]["errors"]) == ("old", "off", "off")


def test_a_secret_in_a_file_is_shown_as_its_path(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sekret")
    text = FILE.replace(b"${KEY}", f"{{file: {tmp_path}/key}}".encode())
    said = shown(usable_config(text, "models.yaml", {"HEADER": "sekret"}), defaults=False)
    assert "sekret" not in said
    assert f"{tmp_path}/key" in said
