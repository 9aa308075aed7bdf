"""The span of one attempt at a replica."""

from __future__ import annotations

from polyroute.core import attributes as names
from polyroute.core.call import Call
from polyroute.core.trace import Span, Value


def begin(parent: Span, call: Call, model: str, replica: str, why: str) -> Span:
    """A span for the call's attempt at a replica of `model`: whoever answers there is its child."""
    operation = names.COMPLETION if call.request.messages is None else names.CHAT
    described: dict[str, Value] = {
        names.OPERATION: operation,
        names.PROVIDER: names.OUR_PROVIDER,
        names.REQUEST_MODEL: model,
        names.DEPLOYMENT: model,
        names.REPLICA: replica,
    }
    if why:
        described[names.WHY] = why
    return parent.child(f"{operation} {model}", "client", described)
