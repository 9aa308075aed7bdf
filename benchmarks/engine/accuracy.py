"""What fewer bits cost: how far a model's answers at each precision are from those in float32.

Run as a module it prints a table: `python -m benchmarks.engine.accuracy [MODEL]`. The text is the documentation of
Python's standard library as the interpreter carries it, cut into pieces of 512 tokens.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from benchmarks.engine import models
from polyroute.backends.local.messages import Load
from polyroute.backends.local.worker import compute
from polyroute.backends.local.worker.loading import Loaded, load
from polyroute.backends.local.worker.progress import Reporter

_DOCUMENTED = (
    "argparse",
    "asyncio",
    "bisect",
    "collections",
    "csv",
    "datetime",
    "decimal",
    "email",
    "fractions",
    "heapq",
)
_MORE = (
    "http.server",
    "inspect",
    "io",
    "json",
    "logging",
    "optparse",
    "pickle",
    "random",
    "statistics",
    "string",
    "typing",
)
_PIECE = 512
_PIECES = 8
_PRECISIONS = ("bfloat16", "int8", "int4")


@dataclass(frozen=True)
class Distance:
    """Of next-token distributions from float32's: mean Kullback-Leibler divergence in nats, share of places with the
    same likeliest token; and the perplexity of the text."""

    divergence: float
    agreement: float
    perplexity: float


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine.accuracy", description=__doc__)
    parser.add_argument("model", nargs="?", default=models.DEMO, help="a folder, or demo (the default)")
    parser.add_argument("--models", type=Path, default=models.CACHE, metavar="DIR", help="where models are kept")
    options = parser.parse_args()
    folder = models.find(options.model, options.models)
    if folder is None or not (folder / "config.json").exists():
        making = f"make bench-engine ARGS='--model {options.model} --rounds 1'"
        sys.exit(f"there is no model {options.model}; `{making}` makes one")
    exact = _loaded(folder, "float32")
    pieces = _text(exact.tokenizer)
    wanted = [_logits(exact.model, piece) for piece in pieces]
    print(f"{folder.name}, {len(pieces) * _PIECE} tokens; float32 has perplexity {_perplexity(wanted, pieces):.2f}\n")
    print("| precision | divergence, nats | same likeliest token | perplexity |\n|---|---:|---:|---:|")
    for precision in _PRECISIONS:
        model = _loaded(folder, precision).model
        found = [_logits(model, piece) for piece in pieces]
        far = distance(found, wanted, pieces)
        print(f"| {precision} | {far.divergence:.4f} | {far.agreement:.1%} | {far.perplexity:.2f} |", flush=True)


def distance(found: list[torch.Tensor], wanted: list[torch.Tensor], pieces: list[torch.Tensor]) -> Distance:
    """How far logits [tokens, vocabulary] of each piece of the text are from the wanted ones."""
    divergences, same = [], []
    for ours, theirs in zip(found, wanted, strict=True):
        ours, theirs = ours.log_softmax(-1), theirs.log_softmax(-1)
        divergences.append((theirs.exp() * (theirs - ours)).sum(-1))
        same.append(ours.argmax(-1) == theirs.argmax(-1))
    agreement = torch.cat(same).float().mean()
    return Distance(float(torch.cat(divergences).mean()), float(agreement), _perplexity(found, pieces))


def _perplexity(logits: list[torch.Tensor], pieces: list[torch.Tensor]) -> float:
    losses = [
        torch.nn.functional.cross_entropy(found[:-1], piece[1:]) for found, piece in zip(logits, pieces, strict=True)
    ]
    return float(torch.stack(losses).mean().exp())


def _loaded(folder: Path, precision: str) -> Loaded:
    quantized = precision.startswith("int")
    order = Load(
        model="accuracy",
        source=str(folder),
        revision=None,
        device="cpu",
        dtype="auto" if quantized else precision,
        trust_remote_code=False,
        cache_dir=str(folder),
        quantization=precision if quantized else None,
    )
    loaded = load(order, Reporter(lambda _: None))
    compute.prepare(loaded.model, quantization=order.quantization)
    return loaded


def _text(tokenizer: Any) -> list[torch.Tensor]:
    parts = []
    for name in (*_DOCUMENTED, *_MORE):
        module = import_module(name)
        parts += [inspect.getdoc(module) or "", *(inspect.getdoc(v) or "" for _, v in sorted(vars(module).items()))]
    tokens = torch.tensor(tokenizer("\n\n".join(filter(None, parts)))["input_ids"])
    return list(
        tokens[: len(tokens) // _PIECE * _PIECE].view(-1, _PIECE)[:: max(1, len(tokens) // _PIECE // _PIECES)][:_PIECES]
    )


@torch.inference_mode()
def _logits(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = model(input_ids=tokens[None], use_cache=False).logits[0]
    return logits.float()


if __name__ == "__main__":
    main()
