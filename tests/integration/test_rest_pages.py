"""Models, health, metrics, the API's description and the console, on a real socket."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus
from yarl import URL

from polyroute.backends.echo import EchoBackend
from polyroute.core.backend import ModelState
from polyroute.core.config import RouteConfig, VariantConfig
from tests.integration.rest_serving import Rest, rest_over

ROUTE = RouteConfig(id="chat", variants=(VariantConfig(name="only", model="org/echo"),), fallback=("other",))


@pytest.fixture
def echo() -> EchoBackend:
    return EchoBackend("org/echo", version="v7", context_length=2048)


@pytest.fixture
async def rest(echo: EchoBackend) -> AsyncIterator[Rest]:
    async with rest_over(echo, EchoBackend("other"), routes=(ROUTE,)) as running:
        yield running


async def test_models_are_listed_in_both_styles(rest: Rest) -> None:
    status, told = await rest.get_json("/v1/models")
    assert status == 200
    assert told["object"] == "list"
    assert told["models"] == [m["id"] for m in told["data"]] == ["chat", "org/echo", "other"]
    assert told["default_model"] == "org/echo"
    model = told["data"][1]
    assert (model["object"], model["owned_by"], model["type"]) == ("model", "polyroute", "remote")
    assert (model["state"], model["version"], model["context_length"]) == ("warm", "v7", 2048)
    assert isinstance(model["created"], int)
    route = told["data"][0]
    assert route["variants"] == [{"name": "only", "model": "org/echo", "share": 1.0}]
    assert route["fallback"] == ["other"]


async def test_one_model_by_an_id_with_slashes(rest: Rest) -> None:
    assert (await rest.get_json("/v1/models/org/echo"))[1]["id"] == "org/echo"
    assert (await rest.get_json("/v1/models/org%2Fecho"))[1]["id"] == "org/echo"
    status, told = await rest.get_json("/v1/models/org/none")
    assert status == 404
    assert told["error"]["code"] == "UNKNOWN_MODEL"


async def test_ready_follows_the_default_model_and_alive_does_not(rest: Rest, echo: EchoBackend) -> None:
    assert (await rest.get_json("/readyz"))[0] == 200
    echo.state, echo.detail = ModelState.LOADING, "40 of 269 MB"
    status, told = await rest.get_json("/readyz")
    assert status == 503
    assert told == {
        "status": "not_ready",
        "reason": "`org/echo` is loading",
        "default_model": "org/echo",
        "state": "loading",
        "detail": "40 of 269 MB",
    }
    assert (await rest.get_json("/healthz")) == (200, {"status": "ok"})


async def test_draining_is_not_ready_and_takes_no_calls(rest: Rest) -> None:
    rest.draining = True
    status, told = await rest.get_json("/readyz")
    assert (status, told["reason"]) == (503, "the server is draining")
    status, told, headers = await rest.post("/v1/generate", {"prompt": "x"})
    assert (status, told["error"]["code"]) == (503, "DRAINING")
    assert headers["Retry-After"] == "5"
    assert headers["Connection"] == "close"
    assert (await rest.get("/healthz"))[0] == 200


async def test_metrics_in_both_formats(rest: Rest) -> None:
    await rest.post("/v1/generate", {"prompt": "x"})
    _, body, headers = await rest.get("/metrics")
    assert headers["Content-Type"].startswith("text/plain")
    names = {family.name for family in prometheus(body.decode())}
    assert "polyroute_requests" in names
    _, body, headers = await rest.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert "polyroute_requests" in {family.name for family in openmetrics(body.decode())}


async def test_an_unknown_path_and_a_wrong_method_are_told_in_json(rest: Rest) -> None:
    status, told = await rest.get_json("/v2/none")
    assert status == 404
    assert told["error"]["type"] == "not_found_error"
    assert "`/v2/none`" in told["error"]["message"]
    async with rest.client.get(rest.url + "/v1/generate") as answer:
        assert answer.status == 405
        assert answer.headers["Allow"] == "POST"
        assert (await answer.json())["error"]["code"] == "METHOD_NOT_ALLOWED"


async def test_the_description_lists_every_endpoint(rest: Rest) -> None:
    status, told = await rest.get_json("/openapi.json")
    assert status == 200
    listed = {(method.upper(), path) for path, methods in told["paths"].items() for method in methods}
    calls = ["/v1/generate", "/v1/generate/batch", "/v1/stream", "/v1/chat/completions", "/v1/completions"]
    pages = ["/v1/models", "/v1/models/{model}", "/healthz", "/readyz", "/metrics", "/openapi.json", "/"]
    assert {("POST", p) for p in calls} | {("GET", p) for p in pages} <= listed
    for method, path in listed:
        async with rest.client.request(method, rest.url + path.format(model="org/echo", file="app.js")) as answer:
            assert answer.status in (200, 400), (method, path)


async def test_the_console_is_closed_to_everything_foreign(rest: Rest) -> None:
    status, page, headers = await rest.get("/")
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    policy = headers["Content-Security-Policy"]
    for rule in ("default-src 'none'", "script-src 'self'", "connect-src 'self'", "frame-ancestors 'none'"):
        assert rule in policy
    assert "unsafe" not in policy
    linked = re.findall(r'(?:src|href)="([\w./]+)"', page.decode())
    assert {"console/app.js", "console/styles/base.css"} <= set(linked)
    for link in linked:
        assert (await rest.get(f"/{link}"))[0] == 200, link


async def test_the_console_is_sent_small_and_once(rest: Rest) -> None:
    status, body, headers = await rest.get("/console/app.js")
    assert (status, headers["Content-Type"]) == (200, "text/javascript; charset=utf-8")
    assert (headers["Content-Encoding"], headers["Vary"]) == ("gzip", "Accept-Encoding")
    assert headers["Cache-Control"] == "no-cache"
    assert (await rest.get("/console/app.js", **{"Accept-Encoding": "identity"}))[1] == body
    status, again, known = await rest.get("/console/app.js", **{"If-None-Match": headers["ETag"]})
    assert (status, again, known["ETag"]) == (304, b"", headers["ETag"])
    assert (await rest.get("/console/app.js", **{"If-None-Match": '"another"'}))[0] == 200


@pytest.mark.parametrize(
    "path",
    ["none.js", "vendor/README.md", "../rest/console.py", "..%2Frest%2Fconsole.py", "%2Fetc%2Fpasswd", "vendor", ""],
)
async def test_the_console_has_nothing_but_its_files(rest: Rest, path: str) -> None:
    async with rest.client.get(URL(f"{rest.url}/console/{path}", encoded=True)) as answer:
        assert answer.status == 404
        assert (await answer.json())["error"]["type"] == "not_found_error"


async def test_head_is_answered_without_a_body(rest: Rest) -> None:
    async with rest.client.head(rest.url + "/healthz") as answer:
        assert (answer.status, await answer.read()) == (200, b"")
