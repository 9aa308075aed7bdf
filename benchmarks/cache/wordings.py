"""Whether an embedding model can tell a question from one worded in another way: `python -m benchmarks.cache.wordings`.

Prints how many pairs of each kind a semantic cache would take for the same, by threshold, with its rules and without.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import struct
from collections.abc import Mapping, Sequence
from typing import Final

import structlog

from polyroute.backends.local.embedder import LocalEmbedder
from polyroute.core.embedder import NoEmbedding
from polyroute.routing.cache.wording import difference

THRESHOLDS: Final = (0.8, 0.85, 0.9, 0.95, 0.98)

PAIRS: Final[Mapping[str, Sequence[tuple[str, str]]]] = {
    "same meaning": (
        ("What is the capital of France?", "Which city is the capital of France?"),
        ("How do I reset my password?", "How can I reset my password?"),
        ("How do I reset my password?", "I forgot my password, how do I get a new one?"),
        ("Explain photosynthesis in one sentence.", "In one sentence, explain photosynthesis."),
        ("How tall is Mount Everest?", "What is the height of Mount Everest?"),
        ("What does HTTP stand for?", "What is HTTP an abbreviation of?"),
        ("How do I undo the last git commit?", "How can I revert my most recent git commit?"),
        ("Who wrote Hamlet?", "Who is the author of Hamlet?"),
        ("What causes tides?", "Why are there tides?"),
        ("Is it safe to eat raw eggs?", "Can raw eggs be eaten safely?"),
        ("How long does it take to boil an egg?", "How many minutes should I boil an egg?"),
        ("What is the boiling point of water?", "At what temperature does water boil?"),
        ("Where can I see my invoices?", "Where do I find my invoices?"),
        ("Tell me a fact about octopuses", "Give me a fact about octopuses."),
        ("How do I cancel my subscription?", "What do I have to do to cancel my subscription?"),
        ("Why is the sky blue?", "What makes the sky blue?"),
    ),
    "turned round": (
        ("Is Python better than Java?", "Is Java better than Python?"),
        ("How do I convert miles to kilometres?", "How do I convert kilometres to miles?"),
        ("Did Caesar defeat Pompey?", "Did Pompey defeat Caesar?"),
        ("How do I move from AWS to Azure?", "How do I move from Azure to AWS?"),
        ("Translate this from English to German: gift", "Translate this from German to English: gift"),
        ("Is the Nile longer than the Amazon?", "Is the Amazon longer than the Nile?"),
        ("What does the buyer owe the seller?", "What does the seller owe the buyer?"),
        ("Can a dog catch fleas from a cat?", "Can a cat catch fleas from a dog?"),
        ("Does sleep affect memory?", "Does memory affect sleep?"),
        ("How do I import CSV data and export JSON?", "How do I import JSON data and export CSV?"),
    ),
    "negated": (
        ("Can dogs eat grapes?", "Can dogs not eat grapes?"),
        ("Which drugs can I take with alcohol?", "Which drugs can I take without alcohol?"),
        ("Is this plant poisonous?", "Is this plant not poisonous?"),
        ("Why should I use Kubernetes?", "Why should I not use Kubernetes?"),
        ("Which countries are in the EU?", "Which countries are not in the EU?"),
        ("When do I have to pay tax?", "When do I not have to pay tax?"),
        ("What are foods with gluten?", "What are foods without gluten?"),
        ("Does it work?", "Doesn't it work?"),
    ),
    "opposite words": (
        ("How do I increase my blood pressure?", "How do I decrease my blood pressure?"),
        ("How do I enable two-factor authentication?", "How do I disable two-factor authentication?"),
        ("What is the minimum wage?", "What is the maximum wage?"),
        ("How do I turn the alarm on?", "How do I turn the alarm off?"),
        ("What are the advantages of nuclear power?", "What are the disadvantages of nuclear power?"),
        ("How do I encrypt a file?", "How do I decrypt a file?"),
        ("Is it legal to park here?", "Is it illegal to park here?"),
        ("Which stocks went up today?", "Which stocks went down today?"),
    ),
    "other numbers": (
        ("Convert 10 miles to kilometres", "Convert 12 miles to kilometres"),
        ("What happened in 1969?", "What happened in 1968?"),
        ("What is 17 times 23?", "What is 17 times 24?"),
        ("Write a summary in 50 words", "Write a summary in 500 words"),
        ("What is new in Python 3.11?", "What is new in Python 3.12?"),
        ("Is a BMI of 24 healthy?", "Is a BMI of 34 healthy?"),
        ("Who won the world cup in 2014?", "Who won the world cup in 2018?"),
        ("Remind me at 8 pm", "Remind me at 9 pm"),
    ),
    "other names": (
        ("What is the capital of France?", "What is the capital of Spain?"),
        ("Who wrote Hamlet?", "Who wrote Faust?"),
        ("What is the melting point of iron?", "What is the melting point of copper?"),
        ("How do I install Redis on Debian?", "How do I install Redis on Fedora?"),
        ("What is the population of Norway?", "What is the population of Sweden?"),
        ("How do I delete a branch in git?", "How do I rename a branch in git?"),
        ("Is ibuprofen safe in pregnancy?", "Is paracetamol safe in pregnancy?"),
        ("What time is it in Tokyo?", "What time is it in Osaka?"),
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a table; always returns 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cache.wordings", description=__doc__)
    parser.add_argument("--embedder", default="minilm", help="as `cache.semantic.embedder` (default: %(default)s)")
    options = parser.parse_args(arguments)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    print(table(asyncio.run(similarities(options.embedder))))
    return 0


async def similarities(source: str) -> dict[str, list[float]]:
    """The similarity of each pair, by kind."""
    embedder = LocalEmbedder(source)
    try:
        return {kind: [await _similarity(embedder, *pair) for pair in pairs] for kind, pairs in PAIRS.items()}
    finally:
        await embedder.stop()


def table(found: Mapping[str, Sequence[float]]) -> str:
    """How many pairs of each kind are at or above each threshold; behind it, those that the rules let pass."""
    lines = ["| pairs | " + " | ".join(f"{t:g}" for t in THRESHOLDS) + " | least, mean, greatest |"]
    lines += ["|---|" + "---:|" * len(THRESHOLDS) + "---|"]
    for kind, values in found.items():
        cells = []
        for threshold in THRESHOLDS:
            near = [pair for pair, value in zip(PAIRS[kind], values, strict=True) if value >= threshold]
            cells.append(f"{len(near)}, {sum(not difference(*pair) for pair in near)}")
        spread = f"{min(values):.2f}, {sum(values) / len(values):.2f}, {max(values):.2f}"
        lines.append(f"| {kind} ({len(values)}) | {' | '.join(cells)} | {spread} |")
    return "\n".join(lines)


async def _similarity(embedder: LocalEmbedder, one: str, other: str) -> float:
    ones, others = await _vector(embedder, one), await _vector(embedder, other)
    return sum(x * y for x, y in zip(ones, others, strict=True))


async def _vector(embedder: LocalEmbedder, text: str) -> tuple[float, ...]:
    while True:
        try:
            vector = await embedder.embed(text)
            return struct.unpack(f"{len(vector) // 4}f", vector)
        except NoEmbedding as error:
            if "is being loaded" not in str(error):
                raise
            await asyncio.sleep(0.1)


if __name__ == "__main__":
    raise SystemExit(main())
