"""How much memory a model's weights will take, from the sizes of its files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from polyroute.backends.local.claims import Needs
from polyroute.core.config import LocalConfig

PROCESS_BYTES: Final = 400 << 20
"""What a worker process takes without any weights, about: torch, transformers and a tokenizer."""

UNKNOWN_BYTES: Final = 4 << 30
"""What is expected of weights that nobody has here yet."""

_UNPACKED: Final = 4
"""A `.gguf` file's weights are unpacked to 16 bits; most such files have 4 or 5."""

_FILES: Final = ("model*.safetensors", "pytorch_model*.bin")


def expected(config: LocalConfig, environ: Mapping[str, str] = os.environ) -> Needs:
    """What a replica is expected to need, where none has been measured yet.

    Looks at the files of a folder, a `.gguf` file or the hub's cache; reads no weights. It is sure only where these are
    loaded as they are.
    """
    try:
        weights = _of_files(config, environ)
    except OSError:  # the load will say what is wrong with them
        weights = None
    as_they_are = config.dtype == "auto" and config.quantization is None and not _packed(config)
    return Needs(
        PROCESS_BYTES + (UNKNOWN_BYTES if weights is None else weights),
        config.kv_cache_memory,
        sure=weights is not None and as_they_are,
    )


def _packed(config: LocalConfig) -> bool:
    return config.effective_source.endswith(".gguf")


def _of_files(config: LocalConfig, environ: Mapping[str, str]) -> int | None:
    source = Path(config.effective_source).expanduser()
    if _packed(config):
        return _UNPACKED * source.stat().st_size if source.is_file() else None
    folder = source if source.is_dir() else _in_hub_cache(config.effective_source, config.revision, environ)
    if folder is None:
        return None
    for pattern in _FILES:
        if size := sum(file.stat().st_size for file in folder.glob(pattern)):
            return size * (2 if config.dtype == "float32" else 1)  # most are published in 16 bits
    return None


def _in_hub_cache(name: str, revision: str | None, environ: Mapping[str, str]) -> Path | None:
    """The newest snapshot of a hub model, or the one of `revision`, where it has been downloaded before.

    Laid out as in huggingface_hub's "Understand caching".
    """
    home = environ.get("HF_HOME") or str(Path(environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    hub = Path(environ.get("HF_HUB_CACHE") or str(Path(home) / "hub")).expanduser()
    snapshots = hub / f"models--{name.replace('/', '--')}" / "snapshots"
    if revision is not None and (snapshots / revision).is_dir():
        return snapshots / revision
    if not snapshots.is_dir():
        return None
    return max(snapshots.iterdir(), key=lambda snapshot: snapshot.stat().st_mtime, default=None)
