"""Server reflection, v1alpha and v1: the two differ in nothing but their package."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2 as alpha
from grpc_reflection.v1alpha import reflection_pb2_grpc as alpha_grpc
from grpc_reflection.v1alpha.reflection import SERVICE_NAME as V1ALPHA
from grpc_reflection.v1alpha.reflection import aio as stock

V1: Final = "grpc.reflection.v1.ServerReflection"


def add_reflection(server: grpc.aio.Server, services: Iterable[str], files: Iterable[Any]) -> None:
    """Serves reflection of `services`, which `files` define, and of itself, under both of its names.

    `files` are descriptors of files, which are of one type or another as protobuf is built.
    """
    servicer = stock.ReflectionServicer((*services, V1ALPHA, V1), pool=_pool(files))
    alpha_grpc.add_ServerReflectionServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
    v1 = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=alpha.ServerReflectionRequest.FromString,
        response_serializer=alpha.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(V1, {"ServerReflectionInfo": v1}),))


def _pool(files: Iterable[Any]) -> descriptor_pool.DescriptorPool:
    """A pool of our own: another library may have put its v1 of reflection into the default one."""
    pool = descriptor_pool.DescriptorPool()
    added: set[str] = set()

    def add(file: Any) -> None:
        if file.name in added:
            return
        added.add(file.name)
        for dependency in file.dependencies:
            add(dependency)
        pool.AddSerializedFile(file.serialized_pb)

    for file in files:
        add(file)
    add(alpha.DESCRIPTOR)
    pool.AddSerializedFile(_v1().SerializeToString())
    return pool


def _v1() -> FileDescriptorProto:
    """The file of v1: that of v1alpha under the new package."""
    file = FileDescriptorProto()
    alpha.DESCRIPTOR.CopyToProto(file)
    old, file.package = f".{file.package}.", "grpc.reflection.v1"
    file.name = "grpc/reflection/v1/reflection.proto"
    for message in file.message_type:
        for field in message.field:
            if field.type_name:  # scalars have none, and must not be given an empty one
                field.type_name = field.type_name.replace(old, f".{file.package}.")
    for method in file.service[0].method:
        method.input_type = method.input_type.replace(old, f".{file.package}.")
        method.output_type = method.output_type.replace(old, f".{file.package}.")
    return file
