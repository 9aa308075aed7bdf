"""Channel arguments of the gRPC servers; each was tried for its effect, since gRPC ignores unknown ones in silence."""

from __future__ import annotations

from typing import Final

from polyroute.core.config import LimitsConfig

_MIB: Final = 1024 * 1024
_PENDING: Final = 16_384
"""RPCs that have come and that the event loop has not taken up yet."""
MIN_RECEIVE_BYTES: Final = 64 * _MIB


def channel_options(
    limits: LimitsConfig, *, max_age_s: float | None = None, shared: bool = False
) -> list[tuple[str, int]]:
    """The options of a server that accepts inputs up to `limits`.

    After `max_age_s` seconds, give or take a tenth, a connection gets no further calls (GOAWAY); those in flight go on.
    A port that is `shared` may be listened on by several processes, among which the system divides connections.

    Nothing here bounds what a slow reader lets pile up: that is the window that its own side opens (some 5 MB with
    default options, 100 KB with its `grpc.http2.bdp_probe` 0), beyond which the stream's generator waits.
    """
    age = [] if max_age_s is None else [("grpc.max_connection_age_ms", max(1, round(max_age_s * 1000)))]
    return [
        *age,
        # A second server on the port must fail, not take half of the connections in silence.
        ("grpc.so_reuseport", int(shared)),
        # Clients may ping as often as twice a second. By default three pings within five minutes of a long unary call
        # end its connection ("too many pings").
        ("grpc.http2.min_ping_interval_without_data_ms", 500),
        # A caller whose machine is gone is found out after 30 + 10 s, and its work stops. (`keepalive_timeout_ms` has
        # no effect; `ping_timeout_ms` does.) Pings go on through a unary call, which sends no data for long.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.http2.ping_timeout_ms", 10_000),
        ("grpc.http2.max_pings_without_data", 0),
        # What comes at once must reach us, for permits are the limit: of more than 1,000 RPCs that wait for the event
        # loop, gRPC ends some by chance, beyond 3,000 all, as CANCELLED, and no log or metric of ours would tell.
        ("grpc.server.max_pending_requests", _PENDING),
        ("grpc.server.max_pending_requests_hard_limit", _PENDING),
        # An input beyond our own limit must reach us: we name the field and the limit, gRPC does neither.
        ("grpc.max_receive_message_length", receive_bytes(limits)),
    ]


def receive_bytes(limits: LimitsConfig) -> int:
    """Largest message that a server with `limits` takes; nothing changes it once the server has started."""
    return max(MIN_RECEIVE_BYTES, 2 * int(limits.max_prompt_bytes) + _MIB)
