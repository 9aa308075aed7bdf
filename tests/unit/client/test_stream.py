"""Tool calls of a stream are put together."""

from __future__ import annotations

from polyroute.client import ToolCall
from polyroute.client.stream import join_tool_calls


def test_parts_of_equal_index_concatenate() -> None:
    parts = [
        ToolCall("b", "g", "", 1),
        ToolCall("a", "f", '{"x":', 0),
        ToolCall("", "", " 1}", 0),
        ToolCall("", "", "{}", 1),
    ]
    assert join_tool_calls(parts) == (ToolCall("a", "f", '{"x": 1}', 0), ToolCall("b", "g", "{}", 1))


def test_no_parts_are_no_calls() -> None:
    assert join_tool_calls([]) == ()
