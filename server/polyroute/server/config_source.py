"""The file that the configuration comes from: what stands in it now, and whether that was read already."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from polyroute.core.config import Config
from polyroute.core.config_file import ConfigError, read_content, usable_config


class ConfigSource:
    """A `models.yaml`. Its methods block: away from the event loop with them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last_read = b""
        """Digest of the content that `read` saw last, whether it could be used or not."""
        self.content = b""
        """What `read` has last made a configuration of."""

    def read(self, environ: Mapping[str, str]) -> Config:
        """The configuration that stands there now, to be put in force; raises `ConfigError`."""
        content = read_content(self.path)
        self.last_read = _digest(content)
        config = usable_config(content, str(self.path), environ)
        self.content = content
        return config

    def check(self, environ: Mapping[str, str]) -> Config:
        """As `read`, but the content still counts as not read: nobody puts it in force."""
        return usable_config(read_content(self.path), str(self.path), environ)

    def look(self) -> bytes:
        """Digest of the content now; empty where the file is not there or cannot be read."""
        try:
            return _digest(read_content(self.path))
        except ConfigError:
            return b""


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()
