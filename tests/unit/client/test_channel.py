"""What may be repeated, and how calls spread; the channel arguments' effects are tested over real sockets."""

from __future__ import annotations

import pytest

from polyroute.client.address import parse_address
from polyroute.client.channel import RETRIED, channel_options, service_config
from polyroute.v1 import admin_pb2, inference_pb2, models_pb2

CHANGING = {"LoadModel", "UnloadModel", "Reload", "InvalidateCache", "PauseRollout", "ResumeRollout", "PromoteRollout"}
CHANGING |= {"RollBackRollout"}


def test_every_call_is_either_repeated_or_known_to_change_something() -> None:
    for module in (inference_pb2, models_pb2, admin_pb2):
        for service in module.DESCRIPTOR.services_by_name.values():
            retried = set(RETRIED[service.full_name])
            assert retried | CHANGING >= {method.name for method in service.methods}, service.full_name
            assert not retried & CHANGING


def test_calls_spread_over_a_name_that_stands_for_many() -> None:
    assert service_config(parse_address("dns:///router:1"), 0) == {"loadBalancingConfig": [{"round_robin": {}}]}
    assert service_config(parse_address("router:1"), 0) == {}


@pytest.mark.parametrize(("address", "proxy"), [("127.0.0.1:1", False), ("unix:/s", False), ("router:1", True)])
def test_no_proxy_stands_before_this_machine(address: str, proxy: bool) -> None:
    options = dict(channel_options(parse_address(address), None, 0, 60, 1))
    assert ("grpc.enable_http_proxy" not in options) == proxy
