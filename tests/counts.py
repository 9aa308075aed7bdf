"""Reads a registry as a query would: the sum over every series that has the labels asked for."""

from __future__ import annotations

from prometheus_client import CollectorRegistry


def total(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    """The sum of the samples of that name with these labels, whatever their others are; None where there is none."""
    found = [
        sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    return sum(found) if found else None
