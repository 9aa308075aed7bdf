"""The typed asyncio client of a Polyroute server.

    from polyroute.client import Client

    async with Client("127.0.0.1:50051") as client:
        answer = await client.generate([{"role": "user", "content": "What is HTTP?"}], temperature=0, max_tokens=64)
        print(answer.text)
        print(answer.route)  # who answered, and why

        async with client.stream("Once upon a time", max_tokens=64) as stream:
            async for delta in stream:
                print(delta.text, end="", flush=True)
        print(stream.answer.usage)

A `str` is continued as it stands; a list of messages goes through the model's chat template. Every failure is a
`RequestFailed`: `Overloaded`, `UnknownModel`, `DeadlineExceeded` and so on, with its reason and retry delay. Leaving a
call early, by cancellation, `break` or `aclose`, stops the work on the server.

Names are imported when first used, so that the command line starts without gRPC.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polyroute.client.admin import AdminClient
    from polyroute.client.answers import (
        Answer,
        Attempt,
        AttemptError,
        Delta,
        Route,
        Timing,
        TokenCount,
        TokenLogprob,
        ToolCall,
        TopLogprob,
        Usage,
    )
    from polyroute.client.channel import Tls
    from polyroute.client.client import Client
    from polyroute.client.enums import (
        BreakerState,
        CacheMode,
        CacheResult,
        FinishReason,
        ModelState,
        ModelType,
        RolloutState,
    )
    from polyroute.client.errors import (
        Cancelled,
        DeadlineExceeded,
        FieldViolation,
        InvalidRequest,
        NotCached,
        NotFound,
        Overloaded,
        PermissionDenied,
        RequestFailed,
        ServerFault,
        Unauthenticated,
        Unavailable,
        Unimplemented,
        UnknownModel,
        Unreachable,
    )
    from polyroute.client.models import (
        ModelDescription,
        Plan,
        PlannedAttempt,
        PlannedShadow,
        Replica,
        RolloutProgress,
        SamplingDefaults,
        Variant,
    )
    from polyroute.client.operations import (
        CacheStats,
        ConfigProblem,
        ExperimentReport,
        LastReload,
        Reloaded,
        Rollout,
        RunningConfig,
    )
    from polyroute.client.request import Cache, Choice, GenerateOptions, JsonSchema, Message, Regex, Routing, Tool
    from polyroute.client.stream import AnswerStream

_HOMES = {
    "admin": ("AdminClient",),
    "answers": (
        "Answer",
        "Attempt",
        "AttemptError",
        "Delta",
        "Route",
        "Timing",
        "TokenCount",
        "TokenLogprob",
        "ToolCall",
        "TopLogprob",
        "Usage",
    ),
    "channel": ("Tls",),
    "client": ("Client",),
    "enums": ("BreakerState", "CacheMode", "CacheResult", "FinishReason", "ModelState", "ModelType", "RolloutState"),
    "errors": (
        "Cancelled",
        "DeadlineExceeded",
        "FieldViolation",
        "InvalidRequest",
        "NotCached",
        "NotFound",
        "Overloaded",
        "PermissionDenied",
        "RequestFailed",
        "ServerFault",
        "Unauthenticated",
        "Unavailable",
        "Unimplemented",
        "UnknownModel",
        "Unreachable",
    ),
    "models": (
        "ModelDescription",
        "Plan",
        "PlannedAttempt",
        "PlannedShadow",
        "Replica",
        "RolloutProgress",
        "SamplingDefaults",
        "Variant",
    ),
    "operations": (
        "CacheStats",
        "ConfigProblem",
        "ExperimentReport",
        "LastReload",
        "Reloaded",
        "Rollout",
        "RunningConfig",
    ),
    "request": ("Cache", "Choice", "GenerateOptions", "JsonSchema", "Message", "Regex", "Routing", "Tool"),
    "stream": ("AnswerStream",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AdminClient",
    "Answer",
    "AnswerStream",
    "Attempt",
    "AttemptError",
    "BreakerState",
    "Cache",
    "CacheMode",
    "CacheResult",
    "CacheStats",
    "Cancelled",
    "Choice",
    "Client",
    "ConfigProblem",
    "DeadlineExceeded",
    "Delta",
    "ExperimentReport",
    "FieldViolation",
    "FinishReason",
    "GenerateOptions",
    "InvalidRequest",
    "JsonSchema",
    "LastReload",
    "Message",
    "ModelDescription",
    "ModelState",
    "ModelType",
    "NotCached",
    "NotFound",
    "Overloaded",
    "PermissionDenied",
    "Plan",
    "PlannedAttempt",
    "PlannedShadow",
    "Regex",
    "Reloaded",
    "Replica",
    "RequestFailed",
    "Rollout",
    "RolloutProgress",
    "RolloutState",
    "Route",
    "Routing",
    "RunningConfig",
    "SamplingDefaults",
    "ServerFault",
    "Timing",
    "Tls",
    "TokenCount",
    "TokenLogprob",
    "Tool",
    "ToolCall",
    "TopLogprob",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "UnknownModel",
    "Unreachable",
    "Usage",
    "Variant",
]


def __getattr__(name: str) -> Any:
    module = _HOME.get(name)
    if module is None:
        raise AttributeError(f"module `{__name__}` has no attribute `{name}`")
    value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
