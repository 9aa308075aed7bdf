"""Makes a `Call` of a request and of the RPC that it came with."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import replace
from typing import Any, Final

import grpc.aio

from polyroute.core.call import Call
from polyroute.core.config import LimitsConfig
from polyroute.core.request import Request
from polyroute.core.validate import validate
from polyroute.server.rpc.boundary import current_request_id
from polyroute.server.sticky import headers_of
from polyroute.server.trace import trace_headers

_LONGEST_S: Final = 366 * 24 * 3600.0
"""A deadline further away than this is none."""


def call_from(
    request: Request, rpc: grpc.aio.ServicerContext[Any, Any], limits: LimitsConfig, headers: Collection[str]
) -> Call:
    """The call that `request` and the RPC make together; raises `InvalidArgument`.

    `headers` names the metadata that the call carries along.
    """
    arrived = time.monotonic()
    validate(request, limits)
    left_s = rpc.time_remaining()
    request_id = current_request_id()
    parents, states = [], []
    metadata = tuple(rpc.invocation_metadata() or ())
    for key, value in metadata:
        if key == "traceparent":
            parents.append(str(value))
        elif key == "tracestate":
            states.append(str(value))
    return Call(
        request=replace(request, request_id=request_id),
        request_id=request_id,
        arrived=arrived,
        deadline=arrived + left_s if left_s is not None and left_s < _LONGEST_S else None,
        caller=rpc.peer(),
        trace=trace_headers(parents, states),
        headers=headers_of(metadata, headers),
    )
