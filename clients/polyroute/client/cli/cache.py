"""`polyroute cache`: what the answer cache holds, and what is to leave it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from polyroute.client.cli.admin import ask
from polyroute.client.cli.amounts import size, span
from polyroute.client.cli.options import Server, admin_options, json_option, text
from polyroute.client.cli.printing import print_json, print_table

if TYPE_CHECKING:
    from polyroute.client.operations import CacheModelStats, CacheSemanticStats, CacheStats, CacheTier

model_option = click.option("--model", "-m", type=text, default="", help="Of this model alone.")


@click.group()
def cache() -> None:
    """Show or clear the answer cache."""


@cache.command("stats")
@model_option
@json_option
@admin_options
def cache_stats(model: str, as_json: bool, server: Server) -> None:
    """Show what the cache holds and how often it helped."""
    stats = ask(server, lambda admin: admin.cache_stats(model))
    if as_json:
        print_json(stats)
    else:
        _print(stats)


@cache.command("clear")
@model_option
@click.option("--key", type=text, default="", help="The one answer with this key, as `generate -v` shows it.")
@json_option
@admin_options
def cache_clear(model: str, key: str, as_json: bool, server: Server) -> None:
    """Make stored answers unreachable, at once: all, a model's, or one."""
    removed = ask(server, lambda admin: admin.cache_clear(model, key=key))
    if as_json:
        print_json({"removed": removed})
    else:
        click.echo(f"{removed} answer{'' if removed == 1 else 's'} removed")


def _print(stats: CacheStats) -> None:
    print_table(("tier", "answers", "size", "of", "hits", "misses", "errors", "where"), map(_tier, stats.tiers))
    models = ("model", "tier", "answers", "size", "hits", "misses", "joined", "stored", "tokens saved", "time saved")
    print_table(models, (row for model in stats.models for row in _model(model)))
    semantic = [_semantic(model.model, model.semantic) for model in stats.models if model.semantic is not None]
    if semantic:
        columns = ("semantic", "mode", "threshold", "known", "looked", "near", "served", "compared", "equal", "alike")
        print_table((*columns, "skipped"), semantic)


def _tier(tier: CacheTier) -> tuple[str, ...]:
    where = f"{tier.location} ({tier.trouble})" if tier.trouble else tier.location
    numbers = (str(tier.entries), size(tier.bytes), size(tier.max_bytes) if tier.max_bytes else "-")
    return (tier.name, *numbers, str(tier.hits), str(tier.misses), str(tier.errors), where)


def _model(model: CacheModelStats) -> Iterator[tuple[str, ...]]:
    """A line for the model, and one below it for each tier."""
    saved = (str(model.saved_tokens), span(model.saved_time_s or 0.0))
    yield (
        *(model.model, "", "", "", f"{model.hits}{_share(model.hits, model.hits + model.misses)}"),
        *(str(model.misses), str(model.coalesced), str(model.stores), *saved),
    )
    for tier in model.tiers:
        yield ("", tier.name, str(tier.entries), size(tier.bytes), str(tier.hits), "", "", "", "", "")


def _semantic(model: str, found: CacheSemanticStats) -> tuple[str, ...]:
    return (
        *(model, str(found.mode), f"{found.threshold:g}", str(found.entries), str(found.lookups)),
        *(f"{found.near}{_share(found.near, found.lookups)}", str(found.served), str(found.compared)),
        f"{found.agreed}{_share(found.agreed, found.compared)}",
        "-" if found.mean_agreement is None else f"{found.mean_agreement:.2f}",
        str(found.skipped),
    )


def _share(part: int, whole: int) -> str:
    return f" ({part / whole:.0%})" if whole else ""
