"""Models and plans as the router shows them, as `polyroute.v1` messages."""

from __future__ import annotations

from typing import Final

from polyroute.core.backend import ModelState, ReplicaStatus
from polyroute.core.request import Sampling
from polyroute.routing.views import ModelView, Plan, RolloutStanding
from polyroute.server.wire.values import timestamp
from polyroute.v1 import models_pb2 as pb

_TYPES: Final = {
    "local": pb.MODEL_TYPE_LOCAL,
    "remote": pb.MODEL_TYPE_REMOTE,
    "route": pb.MODEL_TYPE_ROUTE,
}

_BREAKERS: Final = {
    "closed": pb.BREAKER_STATE_CLOSED,
    "open": pb.BREAKER_STATE_OPEN,
    "half_open": pb.BREAKER_STATE_HALF_OPEN,
}


_OVER: Final = frozenset({"promoted", "rolled_back"})
_HELD: Final = frozenset({"paused", "inconclusive"})


def model_to_wire(view: ModelView, rollout: RolloutStanding | None = None) -> pb.Model:
    """A model or route as it stands now, with its rollout where it has one that is not over."""
    status = view.status
    return pb.Model(
        id=view.id,
        type=_TYPES[view.type],
        version=status.version,
        state=_state(status.state),
        detail=status.detail,
        in_flight=view.in_flight,
        queued=view.queued,
        max_concurrency=view.max_concurrency,
        max_queue=view.max_queue,
        context_length=status.context_length,
        default=view.default,
        replicas=map(_replica, status.replicas),
        variants=[pb.Variant(name=v.name, model=v.model, share=v.share) for v in view.variants],
        fallback=view.fallback,
        chat=status.chat,
        ready_since=timestamp(status.ready_since) if status.ready_since else None,
        sampling_defaults=None if status.defaults is None else _defaults(status.defaults),
        rollout=None if rollout is None or rollout.state in _OVER else _progress(rollout),
    )


def _defaults(sampling: Sampling) -> pb.SamplingDefaults:
    return pb.SamplingDefaults(
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        repetition_penalty=sampling.repetition_penalty,
    )


def _progress(rollout: RolloutStanding) -> pb.RolloutProgress:
    return pb.RolloutProgress(to=rollout.to, weight=rollout.weight, held=rollout.state in _HELD)


def plan_to_wire(plan: Plan) -> pb.ExplainRouteResponse:
    """The plan that a request would get."""
    return pb.ExplainRouteResponse(
        requested=plan.requested,
        attempts=[
            pb.PlannedAttempt(
                deployment=attempt.deployment,
                model=attempt.model,
                version=attempt.version,
                variant=attempt.variant,
                fallback=attempt.fallback,
                state=_state(attempt.state),
                cache=attempt.cache,
                replica=attempt.replica,
                replica_reason=attempt.replica_reason,
            )
            for attempt in plan.attempts
        ],
        shadows=[pb.PlannedShadow(deployment=s.deployment, sample=s.sample) for s in plan.shadows],
        reasons=plan.reasons,
        sticky_by=plan.sticky_by,
        hash_point=plan.hash_point,
    )


def _replica(status: ReplicaStatus) -> pb.Replica:
    return pb.Replica(
        name=status.name,
        state=_state(status.state),
        detail=status.detail,
        in_flight=status.in_flight,
        version=status.version,
        breaker=_BREAKERS.get(status.breaker, pb.BREAKER_STATE_UNSPECIFIED),
        ejections=status.ejections,
        weight=status.weight,
    )


def _state(state: ModelState) -> pb.ModelState.ValueType:
    return pb.ModelState.ValueType(state.value)
