"""A model behind `LocalBackend` and its real worker process, with answers that no token ends early."""

from __future__ import annotations

import json
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from polyroute.backends.local.backend import LocalBackend
from polyroute.backends.local.cores import Cores
from polyroute.core.call import Call
from polyroute.core.config import LocalConfig
from polyroute.core.event import Finished, Token, Usage
from polyroute.core.request import Request, Sampling

_TELLING_ENDS = ("config.json", "generation_config.json", "tokenizer_config.json")


@asynccontextmanager
async def backend(folder: Path, precision: str, threads: int, sequences: int) -> AsyncIterator[LocalBackend]:
    """A loaded backend whose worker computes with `threads` threads; it ends with the context."""
    with tempfile.TemporaryDirectory() as place:
        source = Path(place) / "model"
        _without_ends(folder, source)
        quantized = precision.startswith("int")
        config = LocalConfig.model_validate(
            {
                "id": "benchmark",
                "type": "local",
                "source": str(source),
                "device": "cpu",
                "dtype": "auto" if quantized else precision,
                "quantization": precision if quantized else None,
                "max_sequences": sequences,
            }
        )
        served = LocalBackend(config, cache_dir=Path(place), cores=Cores(threads))
        try:
            await served.load()
            yield served
        finally:
            await served.stop()


async def answer(served: LocalBackend, prompt: str, tokens: int) -> AsyncGenerator[Token | Usage, None]:
    """What comes of a greedy answer of `tokens` tokens: its pieces, and at last what it used."""
    request = Request(model="benchmark", prompt=prompt, sampling=Sampling(max_tokens=tokens, temperature=0))
    async with aclosing(served.stream(Call(request, request_id="benchmark"))) as events:
        async for event in events:
            if isinstance(event, Token):
                yield event
            elif isinstance(event, Finished):
                yield event.usage


def texts(folder: Path, prompts: Sequence[Sequence[int]]) -> list[str]:
    """Prompts of whole words (`workload.Words`) as text."""
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    words = {i: token.replace("\u0120", " ") for token, i in vocabulary.items()}
    return ["".join(words[i] for i in prompt) for prompt in prompts]


def _without_ends(folder: Path, copy: Path) -> None:
    """Makes `copy` a model like that in `folder`, but for which no token is the end of an answer."""
    copy.mkdir()
    for file in folder.iterdir():
        if file.name not in _TELLING_ENDS:
            (copy / file.name).symlink_to(file.resolve())
            continue
        fields = json.loads(file.read_text())
        kept = {name: value for name, value in fields.items() if name not in ("eos_token_id", "eos_token")}
        (copy / file.name).write_text(json.dumps(kept))
