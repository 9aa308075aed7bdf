"""Names weights by what they are: a digest over the content of the files that decide a model's answers."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

_DECIDING = (".safetensors", ".bin", ".json", ".jinja", ".model", ".txt", ".py", ".tiktoken", ".gguf")
VERSION_DIGITS: Final = 12
_BLOCK = 1 << 20


def file_digest(path: Path, report: Callable[[int, int], None] | None = None) -> str:
    """SHA-256 of a file in hex; `report` learns how many of how many bytes are read, now and then."""
    digest, done, total = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            done += len(block)
            if report is not None:
                report(done, total)
    return digest.hexdigest()


def folder_version(folder: Path) -> str:
    """The first 12 hex digits of a digest over the names and contents of the model files in `folder`."""
    files = sorted(p for p in folder.iterdir() if p.is_file() and p.suffix in _DECIDING)
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:  # hashing leaves the interpreter lock
        digests = list(pool.map(file_digest, files))
    whole = hashlib.sha256()
    for file, digest in zip(files, digests, strict=True):
        whole.update(f"{file.name}\0{digest}\n".encode())
    return whole.hexdigest()[:VERSION_DIGITS]
