"""Stored answers as the bytes of `polyroute.v1.GenerateResponse`: what is the same each time is written once."""

from __future__ import annotations

import time
from operator import attrgetter
from typing import Final

from google.protobuf.duration_pb2 import Duration

from polyroute.core.event import HIT, Route, Timing, Whole
from polyroute.server.answers import whole_answer
from polyroute.server.forms import form_of
from polyroute.server.wire.answer import answer_to_wire, put_timing
from polyroute.server.wire.values import NANOS, NEARLY_ONE, put_duration
from polyroute.v1 import inference_pb2 as pb

_same: Final = attrgetter("requested", "model", "version", "deployment", "cache_key")
"""What a form tells of a route, besides its reasons."""
_chosen: Final = attrgetter("replica", "variant", "upstream", "sticky_by", "hash_point", "probability")
_NOT_CHOSEN: Final = ("", "", None, "", None, None)
_failed: Final = attrgetter("replica", "variant", "reason", "message")
_NOT_FAILED: Final = ("", "", "", "")


def whole_to_bytes(whole: Whole, request_id: str) -> bytes:
    """One whole answer."""
    route = whole.started.route
    if whole.forms is None or not _writable(route):
        return answer_to_wire(whole_answer(whole), request_id).SerializeToString()
    *reasons, age = route.reasons
    name = ("grpc", *_same(route), *reasons)
    same, differing = form_of(whole, name, lambda: _form(whole))
    wire = pb.GenerateResponse.FromString(differing)
    wire.request_id = request_id
    created = wire.created
    created.seconds, created.nanos = divmod(time.time_ns(), NANOS)
    _put_timing(wire.timing, whole.finished.timing)
    told = wire.route
    told.trace_id = route.trace_id
    told.reasons.append(age)
    put_duration(told.cache_age, route.cache_age_s or 0.0)
    put_duration(told.attempts[0].duration, route.attempts[0].duration_s)
    return same + wire.SerializeToString()  # fields may stand in any order


def _writable(route: Route) -> bool:
    """Whether what differs from one time to the next is what `whole_to_bytes` writes, and nothing else."""
    if route.cache is not HIT or len(route.attempts) != 1 or _chosen(route) != _NOT_CHOSEN:
        return False
    attempt = route.attempts[0]
    if attempt.deployment != route.deployment or _failed(attempt) != _NOT_FAILED:
        return False
    return bool(route.reasons) and route.cache_age_s is not None


def _form(whole: Whole) -> tuple[bytes, bytes]:
    """The answer without what differs from one time to the next: the fields that are all the same, then the others."""
    same = answer_to_wire(whole_answer(whole), "")
    same.ClearField("created")
    differing = pb.GenerateResponse(route=same.route, timing=pb.Timing(queue=Duration()))
    same.ClearField("route")
    same.ClearField("timing")
    route = differing.route
    route.ClearField("trace_id")
    route.ClearField("cache_age")
    route.reasons.pop()
    route.attempts[0].ClearField("duration")
    return same.SerializeToString(), differing.SerializeToString()


def _put_timing(wire: pb.Timing, timing: Timing) -> None:
    """As `put_timing`, where `wire` says already that nothing has waited."""
    total_s = timing.total_s
    at_once = timing.first_token_s == total_s == timing.router_overhead_s and not timing.queue_s
    if at_once and 0.0 <= total_s < NEARLY_ONE:  # all of it was the router's
        wire.first_token.nanos = wire.total.nanos = wire.router_overhead.nanos = round(total_s * NANOS)
    else:
        put_timing(wire, timing)
