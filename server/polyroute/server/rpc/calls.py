"""Makes a `Call` of a request and of the RPC that it came with."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any, Final

import grpc.aio

from polyroute.core.call import Call, Worked
from polyroute.core.config import LimitsConfig
from polyroute.core.request import Request
from polyroute.core.validate import validate
from polyroute.server.rpc.boundary import current_frame
from polyroute.server.sticky import headers_of
from polyroute.server.trace import trace_of

_LONGEST_S: Final = 366 * 24 * 3600.0
"""A deadline further away than this is none."""


def call_from(
    request: Request, rpc: grpc.aio.ServicerContext[Any, Any], limits: LimitsConfig, headers: Collection[str]
) -> Call:
    """The call that `request` and the RPC make together; raises `InvalidArgument`.

    `headers` names the metadata that the call carries along.
    """
    validate(request, limits)
    return call_of(Worked(request), rpc, headers)


def call_of(worked: Worked, rpc: grpc.aio.ServicerContext[Any, Any], headers: Collection[str]) -> Call:
    """The same for a request that was checked before."""
    frame, left_s, metadata = current_frame(), rpc.time_remaining(), rpc.invocation_metadata() or ()
    call = Call(
        request=worked.request,
        request_id=frame.request_id,
        arrived=frame.arrived,
        deadline=None if left_s is None or left_s >= _LONGEST_S else time.monotonic() + left_s,
        trace=trace_of(metadata),
        headers=headers_of(metadata, headers),
        entrance=frame.entrance,
        worked=worked,
    )
    frame.called = True
    return call
