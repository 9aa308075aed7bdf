"""transformers' `generate` over one static batch of all requests."""

from __future__ import annotations

from benchmarks.engine.runner import Options, Runner, main
from benchmarks.engine.runners.generate import Generate


def start(options: Options) -> Runner:
    """Loads the model."""
    return Generate(options, batch=options.sequences)


if __name__ == "__main__":
    main(start)
