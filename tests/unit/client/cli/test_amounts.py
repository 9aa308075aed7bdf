"""Amounts are short, and never round to a thousand of their unit."""

from __future__ import annotations

import pytest

from polyroute.client.cli.amounts import size, span


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536 * 1024, "1.5 MiB"),
        (1024**3 - 1, "1.0 GiB"),
        (5 * 1024**5, "5120.0 TiB"),
    ],
)
def test_sizes(count: int, words: str) -> None:
    assert size(count) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0.0 s"),
        (1.46, "1.5 s"),
        (59.9, "59.9 s"),
        (59.96, "1m 0s"),
        (3599.9, "1h 0m"),
        (90_061, "1d 1h"),
    ],
)
def test_spans(seconds: float, words: str) -> None:
    assert span(seconds) == words
