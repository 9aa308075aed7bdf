"""Two servers, one as the other's peer: one answer, one trace, both routes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.running import Running, run, run_json, serving

pytestmark = pytest.mark.demo

FRONT = """\
default_model: chat
models:
  - id: far
    type: remote
    base_url: http://{http}
    api: openai
    peer_model: demo
  - id: far-legacy
    type: remote
    base_url: http://{http}
    api: generate
    peer_model: demo
  - id: gone
    type: remote
    base_url: http://127.0.0.1:9
routes:
  - id: chat
    variants: [{{name: only, model: gone}}]
    fallback: [far]
"""
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
GENERATE = "polyroute.v1.InferenceService/Generate"


@pytest.fixture(scope="module")
def front(demo: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("front")
    config: Path = folder / "models.yaml"
    config.write_text(FRONT.format(http=demo.http))
    with serving(folder, "--config", str(config)) as running:
        running.wait(lambda: running.get("/healthz")[0] == 200, "it was alive")
        running.wait(lambda: '"WARM"' in states(running).upper(), "it reached its peer")
        yield running


def states(running: Running) -> str:
    models = json.loads(running.get("/v1/models")[1])["data"]
    return json.dumps([m["state"] for m in models if m["id"] == "far"])


def ask(front: Running, request: dict[str, Any]) -> dict[str, Any]:
    return run_json(
        ["grpcurl", "-plaintext", "-H", f"traceparent: {PARENT}", "-d", json.dumps(request), front.grpc, GENERATE]
    )


def test_an_answer_crosses_both_with_one_trace_and_both_routes(front: Running, demo: Running) -> None:
    question = {"messages": [{"role": "user", "content": "What is the capital of France?"}]}
    answer = ask(front, {"model": "far", "messages": question, "temperature": 0, "max_tokens": 14})
    assert "Paris" in answer["text"]
    route = answer["route"]
    assert (route["model"], route["replica"]) == ("far", f"http://{demo.http}")
    assert route["upstream"]["model"] == "demo"
    assert route["upstream"]["reasons"]
    assert route["trace_id"] == route["upstream"]["trace_id"] == TRACE
    assert route["version"] == route["upstream"]["version"], "the peer's version is known here"
    demo.wait(lambda: TRACE in demo.output(), "it logged the call")


def test_the_legacy_dialect_crosses_too(front: Running) -> None:
    answer = ask(
        front, {"model": "far-legacy", "prompt": "The capital of France is", "temperature": 0, "max_tokens": 6}
    )
    assert "Paris" in answer["text"]
    assert answer["route"]["model"] == "far-legacy"
    assert answer["route"]["upstream"]["model"] == "demo"


def test_a_stream_crosses_delta_by_delta(front: Running) -> None:
    request = {"model": "far", "prompt": "One, two, three,", "temperature": 0, "max_tokens": 8}
    output = run(
        ["grpcurl", "-plaintext", "-d", json.dumps(request), front.grpc, "polyroute.v1.InferenceService/StreamGenerate"]
    ).stdout
    assert output.count('"delta"') >= 4
    assert output.count('"end"') == 1


def test_a_fallback_is_taken_and_it_is_told_why(front: Running) -> None:
    question = {"messages": [{"role": "user", "content": "What is the capital of France?"}]}
    answer = ask(front, {"messages": question, "temperature": 0, "max_tokens": 13})
    assert "Paris" in answer["text"]
    *failed, last = answer["route"]["attempts"]
    # Whether a probe has found the peer gone by now, or the call finds it: then with two retries.
    passed_over = "`gone` has no healthy replica, so `far` is tried first" in answer["route"]["reasons"]
    tried = [] if passed_over else [("gone", "PEER_UNREACHABLE")] * 3
    assert [(a["deployment"], a["error"]["reason"]) for a in failed] == tried
    assert last["deployment"] == "far"
    assert "error" not in last


def test_a_bad_field_is_refused_by_the_first_server(front: Running) -> None:
    request = {"model": "far", "prompt": "x", "top_p": 7}
    done = run(["grpcurl", "-plaintext", "-d", json.dumps(request), front.grpc, GENERATE])
    assert "Code: InvalidArgument" in done.stderr
    assert re.search(r"top_p: 7; must be above 0 to 1", done.stderr)
