"""A secret that stands alone in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Final

MAX_SECRET_BYTES: Final = 64 * 1024


class SecretUnreadable(Exception):
    """The file gives no secret; the message names it and says why, and holds nothing of what is in it."""


def read_secret(path: Path) -> str:
    """The secret in the file at `path`, without the space around it; raises `SecretUnreadable`. Blocks."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_SECRET_BYTES + 1)
        if len(content) > MAX_SECRET_BYTES:
            raise SecretUnreadable(f"`{path}` is larger than {MAX_SECRET_BYTES} bytes")
        secret = content.decode("utf-8").strip()
    except OSError as error:
        raise SecretUnreadable(f"`{path}` cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SecretUnreadable(f"`{path}` is not UTF-8") from error
    if not secret:
        raise SecretUnreadable(f"`{path}` is empty")
    return secret
