"""The operator's service as a front has it on its HTTP address: the home answers, for all processes."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any, cast

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from polyroute.server.fronts.home_link import HomeLink
from polyroute.v1 import admin_pb2
from polyroute.v1.admin_pb2_grpc import AdminServiceServicer


def home_operator(home: HomeLink) -> AdminServiceServicer:
    """Every method of `AdminService`, passed on to the home; raises what the home's raise."""
    methods = admin_pb2.DESCRIPTOR.services_by_name["AdminService"].methods
    return cast("AdminServiceServicer", SimpleNamespace(**{m.name: partial(_passed_on, home, m) for m in methods}))


async def _passed_on(home: HomeLink, method: MethodDescriptor, request: Message, context: Any) -> Message:
    response = await home.operate(method.name, request.SerializeToString())
    return GetMessageClass(method.output_type).FromString(response)
