"""Every way a call can fail, with THE table that maps each to gRPC and HTTP.

A class is a row: its gRPC code, HTTP status, machine-readable reason (`google.rpc.ErrorInfo.reason`) and whether the
plan's next attempt may try after it. Nothing else in the project maps errors to statuses. Foreign exceptions are
translated where they are met: aiohttp's in `backends.remote`, torch's in the worker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

if TYPE_CHECKING:
    from polyroute.core.event import Attempt

DOMAIN = "polyroute"
"""`google.rpc.ErrorInfo.domain` of every error."""

GRPC_CODES = {
    "CANCELLED": 1,
    "INVALID_ARGUMENT": 3,
    "DEADLINE_EXCEEDED": 4,
    "NOT_FOUND": 5,
    "PERMISSION_DENIED": 7,
    "RESOURCE_EXHAUSTED": 8,
    "UNIMPLEMENTED": 12,
    "INTERNAL": 13,
    "UNAVAILABLE": 14,
    "UNAUTHENTICATED": 16,
}
"""Number of each gRPC status that the table uses (gRPC "Status codes and their use in gRPC")."""

DEFAULT_RETRY_S = 1.0
"""What a caller is told to wait, in seconds, when an error that passes does not say how long it takes."""

MESSAGE_LIMIT = 2_000
"""Longest error message sent to a caller, in characters; a longer one is cut."""


def clip(text: str, limit: int) -> str:
    """Cuts `text` to `limit` characters, saying that it did, with control characters escaped."""
    shown = text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in shown)


class PolyrouteError(Exception):
    """Root of the tree. `message` is meant for the caller: it names the thing and the limit.

    `retry_after_s` is how long the caller should wait before it tries again, in seconds; None where that is not
    known. `metadata` goes into `ErrorInfo.metadata`. `attempts` are those that were made before the call failed with
    this error, its own among them; empty where it came to none. `quoted` is the part of the message that somebody else
    wrote, such as a peer: it may hold a part of a prompt or of an answer. `shared` says that the attempts are those
    of a run which another call began, and are counted there.
    """

    grpc: ClassVar[str] = "INTERNAL"
    http: ClassVar[int] = 500
    reason: ClassVar[str] = "INTERNAL"
    try_next: ClassVar[bool] = False

    attempts: tuple[Attempt, ...] = ()
    quoted: str = ""
    shared: bool = False

    def __init__(
        self, message: str, *, retry_after_s: float | None = None, metadata: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s
        self.metadata = metadata or {}

    @property
    def own_message(self) -> str:
        """The message without what it quotes: for logs and spans, which no prompt may reach."""
        before, found, after = self.message.rpartition(self.quoted) if self.quoted else ("", "", self.message)
        return f"{before}({len(found)} characters that are not logged){after}" if found else self.message

    @property
    def retry_delay_s(self) -> float | None:
        """Seconds after which the caller may try again; None where waiting changes nothing, as far as is known."""
        if self.retry_after_s is not None:
            return max(0.0, self.retry_after_s)
        return DEFAULT_RETRY_S if self.grpc in ("UNAVAILABLE", "RESOURCE_EXHAUSTED") else None

    def after(self, attempts: tuple[Attempt, ...], message: str) -> Self:
        """A copy for one call, with what that call went through: a backend may raise one error to many callers."""
        copy = type(self).__new__(type(self), message)
        copy.__dict__.update(self.__dict__)
        copy.args = (message,)
        copy.message = message
        copy.attempts = attempts
        return copy


class InvalidArgument(PolyrouteError):
    """A bad field. `field` is its path in the request, such as `messages[3].role`; empty for the whole request.

    `quoted` is the part of the `problem` that is the caller's.
    """

    grpc, http, reason = "INVALID_ARGUMENT", 400, "INVALID_ARGUMENT"

    def __init__(self, field: str, problem: str, *, quoted: str = "") -> None:
        super().__init__(f"{field}: {problem}" if field else problem)
        self.field = field
        self.problem = problem
        self.quoted = quoted


class PromptTooLong(InvalidArgument):
    """The input does not fit the model's context."""

    reason = "PROMPT_TOO_LONG"


class Unsupported(InvalidArgument):
    """A field that the chosen model or peer cannot honour; another attempt of the plan may."""

    reason = "UNSUPPORTED_FIELD"
    try_next = True


class NotFound(PolyrouteError):
    """Something that was named does not exist. `kind` and `name` go into `google.rpc.ResourceInfo`."""

    grpc, http, reason = "NOT_FOUND", 404, "NOT_FOUND"

    def __init__(self, kind: str, name: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.name = name


class UnknownModel(NotFound):
    """No model or route of that name; the message lists near ones."""

    reason = "UNKNOWN_MODEL"

    def __init__(self, name: str, near: tuple[str, ...] = ()) -> None:
        hint = f"; did you mean {' or '.join(f'`{n}`' for n in near)}?" if near else ""
        super().__init__("model", name, f"model: no model or route `{clip(name, 200)}`{hint}")
        self.near = near


class NotCached(NotFound):
    """`ONLY_IF_CACHED` was asked for, and there is no stored answer."""

    reason = "NOT_CACHED"


class Overloaded(PolyrouteError):
    """No room: a queue is full, or a rate limit or quota is used up."""

    grpc, http, reason, try_next = "RESOURCE_EXHAUSTED", 429, "OVERLOADED", True


class Unauthenticated(PolyrouteError):
    """The caller did not say who it is, or not believably."""

    grpc, http, reason = "UNAUTHENTICATED", 401, "UNAUTHENTICATED"


class PermissionDenied(PolyrouteError):
    """The caller may not do this."""

    grpc, http, reason = "PERMISSION_DENIED", 403, "PERMISSION_DENIED"


class Unavailable(PolyrouteError):
    """Not now; the same call may succeed later or elsewhere."""

    grpc, http, reason, try_next = "UNAVAILABLE", 503, "UNAVAILABLE", True


class ModelLoading(Unavailable):
    """The model is being loaded."""

    reason = "MODEL_LOADING"


class ModelFailed(Unavailable):
    """The model could not be loaded; the message says why and what to do."""

    reason = "MODEL_FAILED"


class Draining(Unavailable):
    """The server or the model takes no new calls."""

    reason = "DRAINING"


class NoReplica(Unavailable):
    """No healthy replica is left."""

    reason = "NO_HEALTHY_REPLICA"


class WorkerDied(Unavailable):
    """The worker process that ran the call has ended."""

    reason = "WORKER_DIED"


class PeerUnreachable(Unavailable):
    """The peer could not be reached, or closed the connection before it answered."""

    reason = "PEER_UNREACHABLE"


class PeerFailed(Unavailable):
    """The peer answered badly; the message quotes what it answered, cut."""

    http, reason = 502, "PEER_FAILED"


class StateUnavailable(Unavailable):
    """The state database cannot be used; the message says why."""

    reason, try_next = "STATE_UNAVAILABLE", False


class DeadlineExceeded(PolyrouteError):
    """The caller's deadline, or the model's own `timeout`, has passed."""

    grpc, http, reason = "DEADLINE_EXCEEDED", 504, "DEADLINE_EXCEEDED"


class FirstTokenTimeout(DeadlineExceeded):
    """The model did not begin to answer within its `first_token_timeout`; another attempt may be faster."""

    reason, try_next = "FIRST_TOKEN_TIMEOUT", True


class Cancelled(PolyrouteError):
    """The caller left, or left a stream unread for 60 s."""

    grpc, http, reason = "CANCELLED", 499, "CANCELLED"


class Unimplemented(PolyrouteError):
    """Part of the interface, but not of this version or not of this model."""

    grpc, http, reason = "UNIMPLEMENTED", 501, "UNIMPLEMENTED"


class Internal(PolyrouteError):
    """Our bug. The caller learns the request ID only; the text stays in the log."""

    def __init__(self, request_id: str) -> None:
        super().__init__(f"internal error; the server's log has it under request ID {request_id}")
