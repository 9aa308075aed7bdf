"""The API's description in OpenAPI 3.1, made of the models that parse requests and the types of the answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode

from polyroute.server.rest.call_headers import (
    CACHE_HEADER,
    MAX_AGE_HEADER,
    PACE_HEADER,
    ROUTING_HEADERS,
    TIMEOUT_HEADER,
)
from polyroute.server.rest.endpoints import Endpoint
from polyroute.server.rest.failures import FailureBody

_REF = "#/components/schemas/{model}"
_REQUEST_HEADERS = (
    "X-Request-ID",
    "traceparent",
    "tracestate",
    TIMEOUT_HEADER,
    CACHE_HEADER,
    MAX_AGE_HEADER,
    PACE_HEADER,
)


def describe(listed: Sequence[Endpoint]) -> dict[str, Any]:
    """The whole document."""
    inputs: list[tuple[str, JsonSchemaMode, TypeAdapter[Any]]] = []
    for endpoint in listed:
        if endpoint.body is not None:
            inputs.append((endpoint.body.__name__, "validation", TypeAdapter(endpoint.body)))
        if endpoint.answer is not None:
            inputs.append((endpoint.answer.__name__, "serialization", TypeAdapter(endpoint.answer)))
    inputs.append((FailureBody.__name__, "serialization", TypeAdapter(FailureBody)))
    refs, shared = TypeAdapter.json_schemas(inputs, ref_template=_REF)
    schemas = {key: schema for (key, _), schema in refs.items()}
    paths: dict[str, Any] = {}
    for endpoint in listed:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Polyroute",
            "version": version("polyroute"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {"schemas": shared.get("$defs", {})},
    }


def _operation(endpoint: Endpoint, schemas: dict[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {
        "operationId": _operation_id(endpoint),
        "summary": endpoint.summary,
        "parameters": _parameters(endpoint),
        "responses": _responses(endpoint, schemas),
    }
    if endpoint.body is not None:
        content = {"application/json": {"schema": schemas[endpoint.body.__name__]}}
        told["requestBody"] = {"required": True, "content": content}
    return told


def _operation_id(endpoint: Endpoint) -> str:
    words = re.findall(r"[A-Za-z0-9]+", endpoint.path) or ["console"]
    return "_".join([endpoint.method.lower(), *words])


def _parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    in_path = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", endpoint.path)
    ]
    if endpoint.body is None:
        return in_path
    return in_path + [
        {"name": name, "in": "header", "required": False, "schema": {"type": "string"}}
        for name in (*_REQUEST_HEADERS, *ROUTING_HEADERS)
    ]


def _responses(endpoint: Endpoint, schemas: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {kind: {"schema": {"type": "string"}} for kind in endpoint.media}
    if endpoint.answer is not None:
        content["application/json"] = {"schema": schemas[endpoint.answer.__name__]}
    headers = {"X-Request-ID": {"schema": {"type": "string"}}}
    told = {"200": {"description": endpoint.summary, "content": content, "headers": headers}}
    wrong = {"application/json": {"schema": schemas[FailureBody.__name__]}}
    for status in endpoint.failures:
        told[str(status)] = {"description": HTTPStatus(status).phrase, "content": wrong, "headers": headers}
    return told
