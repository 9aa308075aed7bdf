"""What a peer is told of who asks: its key and its configured headers, kept out of everything that is shown."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from polyroute.core.config import RemoteConfig, SecretFile
from polyroute.core.errors import Unavailable

_SHORTEST_SECRET = 4


class Credentials:
    """The headers for one peer. A key that stands in a file is read at each use, so that it may be changed there."""

    def __init__(self, config: RemoteConfig) -> None:
        self._model = config.id
        self._api_key = config.api_key
        self._headers = {name: value.get_secret_value() for name, value in config.headers.items()}
        self._secrets: set[str] = set(self._headers.values())

    async def headers(self) -> dict[str, str]:
        """The headers; raises `Unavailable` where a key or a header cannot be had or cannot be sent."""
        headers: dict[str, str] = {}
        key = await self._key()
        if key:
            self._secrets.add(key)
            headers["Authorization"] = f"Bearer {key}"
        headers.update(self._headers)
        for name, value in headers.items():
            if not (name.isascii() and value.isprintable() and value.isascii()):
                raise Unavailable(f"`{self._model}`: the header `{name}` for its peer is not printable ASCII")
        return headers

    async def _key(self) -> str:
        if self._api_key is None:
            return ""
        if not isinstance(self._api_key, SecretFile):
            return self._api_key.get_secret_value().strip()
        path = self._api_key.file
        try:
            key = (await asyncio.to_thread(path.read_text, encoding="utf-8")).strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise Unavailable(f"`{self._model}`: the file of its api_key cannot be read: {reason}") from error
        if not key:
            raise Unavailable(f"`{self._model}`: the file of its api_key is empty")
        return key

    def redact(self, text: str) -> str:
        """`text` with every secret that was ever sent struck out, for peers that quote them back."""
        for secret in _longest_first(self._secrets):
            text = text.replace(secret, "***")
        return text


def _longest_first(secrets: Iterable[str]) -> list[str]:
    """Secrets that can be told from ordinary words, each before any that is a part of it."""
    return sorted((secret for secret in secrets if len(secret) >= _SHORTEST_SECRET), key=len, reverse=True)
