"""Attributes that the semantic conventions name are named as they name them."""

from __future__ import annotations

from opentelemetry.semconv._incubating.attributes import (
    error_attributes,
    gen_ai_attributes,
    http_attributes,
    rpc_attributes,
    server_attributes,
)

from polyroute.core import attributes

MODULES = (error_attributes, gen_ai_attributes, http_attributes, rpc_attributes, server_attributes)


def test_names_are_those_of_the_conventions() -> None:
    known = {getattr(module, name) for module in MODULES for name in dir(module) if name.isupper()}
    ours = {value for name, value in vars(attributes).items() if name.isupper() and "." in value}
    strange = {name for name in ours - known if not name.startswith("polyroute.")}
    assert not strange


def test_operations_are_those_of_the_conventions() -> None:
    known = {value.value for value in gen_ai_attributes.GenAiOperationNameValues}
    assert {attributes.CHAT, attributes.COMPLETION} <= known
