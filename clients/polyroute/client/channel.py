"""The connection to one server: channel arguments, retries, TLS, credentials and deadlines, for all calls alike."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import grpc

from polyroute.client.address import Address, parse_address
from polyroute.client.errors import Cancelled, from_rpc

R = TypeVar("R")

MAX_RETRIES = 4  # gRPC makes at most five attempts, whatever a service config says
RETRIED = {
    "polyroute.v1.InferenceService": ("Generate", "StreamGenerate", "CountTokens", "RecordFeedback"),
    "polyroute.v1.ModelService": ("ListModels", "GetModel", "ExplainRoute"),
    "polyroute.v1.AdminService": ("GetConfig", "GetCacheStats", "ListRollouts", "GetRollout", "GetExperimentReport"),
}
"""Calls that may be repeated: they change nothing, or the same thing. A stream only before its first event."""

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")


class CallOptions(TypedDict, total=False):
    """What every call takes besides its request."""

    timeout: float | None
    """Seconds until the call fails with `DeadlineExceeded`; None is the client's own, `math.inf` is none."""
    traceparent: str
    """W3C trace parent (https://www.w3.org/TR/trace-context/) that the server's spans hang under."""
    metadata: Sequence[tuple[str, str]]
    """More gRPC metadata to send."""


@dataclass(frozen=True, slots=True)
class Tls:
    """How to secure the connection: PEM files, read when the client is made.

    `ca_file` is who to trust, the system's authorities when None; `cert_file` and `key_file` are the client's own
    identity, where the server asks for one; `server_name` is the name in the server's certificate, where it is not
    the address's.
    """

    ca_file: str | Path | None = None
    cert_file: str | Path | None = None
    key_file: str | Path | None = None
    server_name: str | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """gRPC's form of it. Raises `ValueError`, or `OSError` for a file that cannot be read."""
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("tls: cert_file and key_file go together")
        ca, key, cert = (
            None if f is None else Path(f).read_bytes() for f in (self.ca_file, self.key_file, self.cert_file)
        )
        return grpc.ssl_channel_credentials(root_certificates=ca, private_key=key, certificate_chain=cert)


class Connection:
    """One server's channel, opened at the first call; closing it cancels the calls in flight."""

    def __init__(
        self,
        address: str,
        *,
        tls: Tls | bool | None,
        token: str | None,
        timeout: float | None,
        retries: int,
        keepalive_s: float,
        max_message_bytes: int,
        default_port: int,
    ) -> None:
        self.address = parse_address(address, default_port)
        if tls is None:
            tls = self.address.tls or False
        elif bool(tls) != self.address.tls and self.address.tls is not None:
            raise ValueError(
                f"address: `{address}` says {'' if self.address.tls else 'no '}TLS, and `tls` the opposite"
            )
        secured = tls if isinstance(tls, Tls) else Tls() if tls else None
        if token is not None and not (token and token.isascii() and token.isprintable()):
            raise ValueError("token: must be printable ASCII and not empty")
        self._credentials = secured.credentials() if secured else None
        self._options = channel_options(self.address, secured, retries, keepalive_s, max_message_bytes)
        self._metadata = () if token is None else (("authorization", f"Bearer {token}"),)
        self._timeout = _seconds(timeout)
        self._channel: grpc.aio.Channel | None = None
        self._closed = False

    @property
    def channel(self) -> grpc.aio.Channel:
        """The channel, opened now if need be. Raises `RuntimeError` when closed."""
        if self._closed:
            raise RuntimeError("the client is closed")
        if self._channel is None:
            target = self.address.target
            if self._credentials is None:
                self._channel = grpc.aio.insecure_channel(target, options=self._options)
            else:
                self._channel = grpc.aio.secure_channel(target, self._credentials, options=self._options)
        return self._channel

    async def close(self) -> None:
        """Cancels what is in flight and lets the connection go."""
        self._closed = True
        if self._channel is not None:
            await self._channel.close()

    def start(self, method: Any, request: object, options: CallOptions) -> Any:
        """Starts a call of `method` (one of a stub on this channel) and returns it."""
        if self._closed:
            raise RuntimeError("the client is closed")
        timeout = options.get("timeout")
        metadata = (*self._metadata, *options.get("metadata", ()), *_trace(options.get("traceparent", "")))
        return method(request, timeout=self._timeout if timeout is None else _seconds(timeout), metadata=metadata)

    async def unary(self, method: grpc.aio.UnaryUnaryMultiCallable[Any, R], request: object, options: CallOptions) -> R:
        """The response of a unary call; raises a `RequestFailed`."""
        call = self.start(method, request, options)
        try:
            response: R = await call
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error, str(self.address)) from error
        except asyncio.CancelledError:
            raise_unless_cancelled("the client was closed during the call")
            raise
        return response


def raise_unless_cancelled(message: str) -> None:
    """gRPC raises `CancelledError` also where nobody cancelled the task, but the call under it: that is a failure."""
    task = asyncio.current_task()
    if task is not None and not task.cancelling():
        raise Cancelled(message, code="CANCELLED") from None


def channel_options(
    address: Address, tls: Tls | None, retries: int, keepalive_s: float, max_message_bytes: int
) -> list[tuple[str, Any]]:
    """gRPC channel arguments; each is tested by its effect, since unknown ones are ignored in silence."""
    if keepalive_s <= 0:
        raise ValueError(f"keepalive_s: {keepalive_s:g}; must be above 0")
    options: list[tuple[str, Any]] = [
        ("grpc.service_config", json.dumps(service_config(address, retries))),
        # The default, 256 KB, silently keeps calls with longer prompts from being retried.
        ("grpc.per_rpc_retry_buffer_size", 16 * 2**20),
        ("grpc.max_receive_message_length", max_message_bytes),
        # gRPC's own ceiling of two minutes is long to wait for a server that is back.
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 5_000),
        # A peer that vanished without a word is noticed while a call waits for it.
        ("grpc.keepalive_time_ms", int(keepalive_s * 1000)),
        ("grpc.http2.ping_timeout_ms", int(min(20.0, keepalive_s) * 1000)),
        ("grpc.http2.max_pings_without_data", 0),  # a unary call sends none for as long as the model thinks
        ("grpc.primary_user_agent", f"polyroute-python/{version('polyroute')}"),
    ]
    if address.loopback:
        options.append(("grpc.enable_http_proxy", 0))
    if tls is not None and tls.server_name:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    return options


def service_config(address: Address, retries: int) -> dict[str, Any]:
    """gRPC service config (gRFC A6): which calls are repeated, on what, and how fast when the server does not say."""
    if not 0 <= retries <= MAX_RETRIES:
        raise ValueError(f"retries: {retries}; must be from 0 to {MAX_RETRIES}")
    config: dict[str, Any] = {}
    if address.many:
        config["loadBalancingConfig"] = [{"round_robin": {}}]
    if retries:
        policy = {
            "maxAttempts": retries + 1,
            "initialBackoff": "0.1s",
            "maxBackoff": "5s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
        }
        names = [{"service": service, "method": method} for service, methods in RETRIED.items() for method in methods]
        config["methodConfig"] = [{"name": names, "retryPolicy": policy}]
        # When most calls fail, repeating them makes it worse.
        config["retryThrottling"] = {"maxTokens": 100, "tokenRatio": 0.1}
    return config


def _seconds(timeout: float | None) -> float | None:
    if timeout is None or timeout == math.inf:
        return None
    if not timeout > 0:
        raise ValueError(f"timeout: {timeout:g} s; must be above 0")
    return timeout


def _trace(traceparent: str) -> tuple[tuple[str, str], ...]:
    if not traceparent:
        return ()
    if not _TRACEPARENT.fullmatch(traceparent):
        raise ValueError("traceparent: not of the form version-traceid-parentid-flags in lower-case hexadecimal")
    return (("traceparent", traceparent),)
