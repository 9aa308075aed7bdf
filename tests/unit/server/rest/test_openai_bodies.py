"""What OpenAI's endpoints read becomes the router's request whole."""

from __future__ import annotations

import json
from typing import Any

import pytest

from polyroute.server.rest.chat_body import ChatBody
from polyroute.server.rest.json_body import parse_body

SCHEMA = {"maximum": 10**400, "title": "Grüße"}


@pytest.mark.parametrize(
    "constraint",
    [
        {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}},
        {"structured_outputs": {"json": SCHEMA}},
    ],
)
def test_a_schema_may_hold_whole_numbers_of_any_length(constraint: dict[str, Any]) -> None:
    body = {"messages": [{"role": "user", "content": "x"}], **constraint}
    form = parse_body(json.dumps(body).encode(), ChatBody).request().response_format
    assert form is not None
    assert isinstance(form.value, str)
    assert json.loads(form.value) == SCHEMA
