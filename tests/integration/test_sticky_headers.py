"""Routes that are keyed on what a caller sends along: HTTP headers and gRPC metadata mean the same."""

from __future__ import annotations

from pathlib import Path

from polyroute.backends.echo import EchoBackend
from polyroute.core.config import RouteConfig, VariantConfig
from polyroute.v1 import inference_pb2 as pb
from polyroute.v1 import models_pb2
from tests.integration.grpc_serving import serving
from tests.integration.rest_serving import rest_over

ROUTES = (
    RouteConfig(
        id="split",
        variants=tuple(VariantConfig(name=name, model=name) for name in ("a", "b", "c", "d")),
        sticky_by=("header:X-Tenant", "user"),
    ),
)
NAMES = ("a", "b", "c", "d")
TENANTS = [f"tenant-{i}" for i in range(12)]


async def test_a_tenant_stays_in_its_variant_over_grpc_and_over_rest(tmp_path: Path) -> None:
    backends = [EchoBackend(name) for name in NAMES]
    said = {}
    async with serving(*backends, folder=tmp_path, routes=ROUTES) as at:
        for tenant in TENANTS:
            sent = (("x-tenant", tenant), ("x-other", "never carried"))
            request = pb.GenerateRequest(model="split", prompt="x")
            route = (await at.inference.Generate(request, metadata=sent)).route
            assert route.sticky_by == "header:x-tenant"
            plan = await at.models.ExplainRoute(models_pb2.ExplainRouteRequest(request=request), metadata=sent)
            assert (plan.hash_point, plan.attempts[0].variant) == (route.hash_point, route.variant)
            said[tenant] = route.variant
        assert all(dict(call.headers).keys() == {"x-tenant"} for backend in backends for call in backend.calls)
        without = pb.GenerateRequest(model="split", prompt="x", routing=pb.RoutingOptions(user="ada"))
        assert (await at.inference.Generate(without)).route.sticky_by == "user"
    assert len(set(said.values())) > 1
    async with rest_over(*(EchoBackend(name) for name in NAMES), routes=ROUTES) as rest:
        for path in ("/v1/generate", "/v1/completions"):
            for tenant in TENANTS:
                asked = {"model": "split", "prompt": "x"}
                async with rest.client.post(rest.url + path, json=asked, headers={"X-TENANT": tenant}) as answer:
                    assert answer.headers["X-Polyroute-Variant"] == said[tenant]
