"""The services of a server, each one object however it is reached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from polyroute.core.config import ConsoleConfig
from polyroute.server.rest.connect.service import Offer
from polyroute.server.rest.operators import admit
from polyroute.server.rpc.inference import InferenceService
from polyroute.server.rpc.models import ModelService
from polyroute.v1 import admin_pb2, inference_pb2, models_pb2
from polyroute.v1.admin_pb2_grpc import AdminServiceServicer


@dataclass(frozen=True, slots=True)
class Services:
    """gRPC has the first two on the public address and the last on its own; on the HTTP address they meet."""

    inference: InferenceService
    models: ModelService
    admin: AdminServiceServicer

    def offers(self, console: Callable[[], ConsoleConfig]) -> tuple[Offer, ...]:
        """All three for the HTTP address, the last one for those whom `console()` lets in."""
        inference = inference_pb2.DESCRIPTOR.services_by_name["InferenceService"]
        models = models_pb2.DESCRIPTOR.services_by_name["ModelService"]
        admin = admin_pb2.DESCRIPTOR.services_by_name["AdminService"]
        return (
            Offer(inference, self.inference),
            Offer(models, self.models),
            Offer(admin, self.admin, lambda http: admit(http, console())),
        )
