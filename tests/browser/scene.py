"""What the console's server runs in the browser tests: models of every kind, an experiment and a rollout."""

from __future__ import annotations

from typing import Final

CONFIG: Final = """\
default_model: demo
models:
  - {{id: demo, type: local}}
  - {{id: spare, type: local, source: demo}}
  - {{id: team/plain, type: remote, base_url: "{peer}", api: openai, version: v1}}
  - {{id: team/terse, type: remote, base_url: "{peer}", api: openai, version: v2}}
  - {{id: team/wordy, type: remote, base_url: "{peer}", api: openai, version: v1}}
  - {{id: team/brittle, type: remote, base_url: "{peer}", api: openai, version: v1, retries: 0, breaker: off}}
  - {{id: team/cached, type: remote, base_url: "{peer}", api: openai, version: v1, cache: {{mode: always}}}}
  - {{id: team/absent, type: remote, base_url: "{nobody}", api: openai, version: v1, retries: 0}}
routes:
  - id: chat
    sticky_by: [user, request]
    variants:
      - {{name: stable, model: team/plain}}
      - {{name: trial, model: team/terse}}
  - id: rolling
    sticky_by: [user, request]
    variants:
      - {{name: old, model: team/plain}}
      - {{name: new, model: team/wordy, weight: 0}}
    rollout: {{from: old, to: new, steps: [{{weight: 10%, hold: 1h}}, {{weight: 50%, hold: 1h}}], run: 1}}
  - {{id: safe, model: team/brittle, fallback: [team/plain]}}
"""
"""`models.yaml`: `demo` is the packaged model and warm, `spare` the same and cold; `team/` are remote.

`team/absent` is away, and `team/cached` answers repeats from the cache whatever the temperature.

`chat` is an experiment, `rolling` a rollout, and `safe` has a fallback.
"""


def config(peer: str, nobody: str) -> str:
    """The file for a peer's URL, and a URL where nobody listens."""
    return CONFIG.format(peer=peer, nobody=nobody)
