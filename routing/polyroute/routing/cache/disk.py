"""How diskcache may lay out what it stores: text keys and whole byte strings, and nothing else."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any, Final

import diskcache
from diskcache.core import MODE_BINARY, MODE_RAW

_FILE: Final = re.compile(r"[0-9a-f]{2}/[0-9a-f]{2}/[0-9a-f]{28}\.val")
DIGEST_BYTES: Final = 16
"""How much longer a value is as it is stored."""


class ForeignEntry(Exception):
    """The folder holds something that this store did not write, or not like that."""


class BytesDisk(diskcache.Disk):  # type: ignore[misc]
    """Text keys and byte values only, each value behind a digest of itself.

    diskcache would pickle others, and unpickle whatever a row says is a pickle, which runs code (CVE-2025-69872); it
    would also read and remove whatever file a row names. The digest shows a value that was cut or changed.
    """

    def put(self, key: Any) -> tuple[str, bool]:
        if not isinstance(key, str):
            raise TypeError(f"a key must be text, not {type(key).__name__}")
        return key, True

    def get(self, key: Any, raw: Any) -> str:
        if not raw or not isinstance(key, str):
            raise ForeignEntry("a key is not plain text")
        return key

    def store(self, value: Any, read: bool, key: Any = None) -> Any:
        if read or not isinstance(value, bytes):
            raise TypeError(f"a value must be bytes, not {type(value).__name__}")
        return super().store(_digest(value) + value, False, key)

    def fetch(self, mode: Any, filename: Any, value: Any, read: Any) -> bytes:
        if mode == MODE_RAW and isinstance(value, bytes):
            framed = value
        elif mode == MODE_BINARY and isinstance(filename, str) and _FILE.fullmatch(filename):
            framed = (Path(self._directory) / filename).read_bytes()
        else:
            raise ForeignEntry(f"an entry of mode {mode!r} was not written by this store")
        digest, whole = framed[:DIGEST_BYTES], framed[DIGEST_BYTES:]
        if digest != _digest(whole):
            raise ForeignEntry("an entry is not as it was written")
        return whole

    def remove(self, file_path: Any) -> None:
        if isinstance(file_path, str) and _FILE.fullmatch(file_path):
            super().remove(file_path)


def _digest(value: bytes) -> bytes:
    return hashlib.blake2b(value, digest_size=DIGEST_BYTES).digest()
