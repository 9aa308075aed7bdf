"""The text of `/metrics`, made in parts, so that calls have their turns in between."""

from __future__ import annotations

import copy
import gc
import time
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

from prometheus_client.metrics_core import Metric as MetricFamily
from prometheus_client.registry import Collector

Encode: TypeAlias = Callable[[Collector], bytes]
"""An encoder of the Prometheus client's, which ends its text with `# EOF` in OpenMetrics."""

_SAMPLES: Final = 500
"""Samples that are encoded before other threads have their turn."""

_PAUSE_S: Final = 0.001
_PART_BYTES: Final = 64 * 1024


def parts(registry: Collector, encode: Encode) -> Iterator[bytes]:
    """What `encode` makes of the registry, in parts of whole families. To be taken in a thread: each may take long.

    There must be no `_created` samples, which the encoders put after all others of their family.
    """
    end = encode(_Only())
    families = iter(registry.collect())
    part = b""
    while (text := _next(families, encode, end)) is not None:
        part += text
        if len(part) >= _PART_BYTES:
            yield part
            part = b""
    yield part + end


class _Only(Collector):
    """A registry of these families."""

    def __init__(self, *families: MetricFamily) -> None:
        self._families = families

    def collect(self) -> tuple[MetricFamily, ...]:
        return self._families


def _next(families: Iterator[MetricFamily], encode: Encode, end: bytes) -> bytes | None:
    """The text of the next family, without an end; None after the last."""
    # A large family is a hundred thousand objects, which refer to each other in no circle. To look for some would
    # lead to full collections, each of which holds up every call.
    collecting = gc.isenabled()
    gc.disable()
    try:
        family = next(families, None)
        return None if family is None else b"".join(_pieces(family, encode, end))
    finally:
        if collecting:
            gc.enable()


def _pieces(family: MetricFamily, encode: Encode, end: bytes) -> Iterator[bytes]:
    samples, family.samples = family.samples, []  # whoever made it holds it longer than its samples are needed
    for first in range(0, max(1, len(samples)), _SAMPLES):
        piece = copy.copy(family)
        piece.samples = samples[first : first + _SAMPLES]
        text = encode(_Only(piece)).removesuffix(end)
        yield _without_head(text) if first else text
        if len(piece.samples) == _SAMPLES:
            time.sleep(_PAUSE_S)


def _without_head(text: bytes) -> bytes:
    """The samples without the lines that tell of the family."""
    begin = 0
    while text.startswith(b"#", begin):
        begin = text.index(b"\n", begin) + 1
    return text[begin:]
