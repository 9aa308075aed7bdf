"""Calls of local models on their way from a front to the home."""

from __future__ import annotations

from polyroute.core.call import Call
from polyroute.core.request import Request, Tool
from polyroute.core.trace import Trace
from polyroute.server.fronts.messages.models import LocalCall


def told(call: Call) -> LocalCall:
    """What a local model needs to know of a call."""
    request, trace = call.request, call.trace
    return LocalCall(
        request_id=call.request_id,
        prompt=request.prompt,
        messages=request.messages,
        sampling=request.sampling,
        stop=request.stop,
        response_format=request.response_format,
        tools=tuple((tool.name, tool.description, dict(tool.parameters)) for tool in request.tools),
        tool_choice=request.tool_choice,
        extra=dict(request.extra),
        routing=request.routing,
        deadline=call.deadline,
        start_by=call.start_by,
        wait_for_load=call.wait_for_load,
        copy=call.copy,
        trace=(trace.trace_id, trace.span_id, trace.flags, trace.state),
    )


def call_of(model: str, local: LocalCall) -> Call:
    """The call that was told of. All processes of a machine have one monotonic clock, so its times hold here too."""
    request = Request(
        model=model,
        prompt=local.prompt,
        messages=local.messages,
        sampling=local.sampling,
        stop=local.stop,
        response_format=local.response_format,
        tools=tuple(Tool(*tool) for tool in local.tools),
        tool_choice=local.tool_choice,
        extra=local.extra,
        routing=local.routing,
    )
    return Call(
        request,
        local.request_id,
        deadline=local.deadline,
        start_by=local.start_by,
        wait_for_load=local.wait_for_load,
        copy=local.copy,
        trace=Trace(*local.trace),
    )
