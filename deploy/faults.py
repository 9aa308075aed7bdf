"""Which outcomes of calls are the service's fault, and not the caller's: what answers 500 or more, 501 excepted."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus

from polyroute.core.errors import PolyrouteError


def faults() -> str:
    """The reasons as a regular expression, which the rules of `deploy/prometheus/recording.yaml` have too."""
    return "|".join(sorted({row.reason for row in _rows(PolyrouteError) if _at_fault(row)}))


def _at_fault(row: type[PolyrouteError]) -> bool:
    return row.http >= HTTPStatus.INTERNAL_SERVER_ERROR and row.http != HTTPStatus.NOT_IMPLEMENTED


def _rows(root: type[PolyrouteError]) -> Iterator[type[PolyrouteError]]:
    yield root
    for row in root.__subclasses__():
        yield from _rows(row)
