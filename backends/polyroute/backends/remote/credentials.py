"""What a peer is told of who asks: its key and its configured headers, kept out of everything that is shown."""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import structlog

from polyroute.core.config import RemoteConfig, SecretFile
from polyroute.core.errors import Unavailable
from polyroute.core.secret import SecretUnreadable, read_secret

FRESH_S: Final = 1.0
"""How long a key that was read from a file is used without looking there again, in seconds."""

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A header's name (RFC 9110, section 5.6.2)."""
_OURS = frozenset({"content-length", "transfer-encoding"})
"""They say where a request ends."""
_SHORTEST_SECRET = 4
_KEYS_REMEMBERED = 8

log = structlog.get_logger(__name__)


class Credentials:
    """The headers for one peer. A key that stands in a file follows it; while there is none, the last one is used."""

    def __init__(self, config: RemoteConfig, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._model = config.id
        self._api_key = config.api_key
        self._headers = {name: value.get_secret_value() for name, value in config.headers.items()}
        self._clock = clock
        self._keys: deque[str] = deque(maxlen=_KEYS_REMEMBERED)  # the last one is in use
        self._settled: Mapping[str, str] | None = None  # where no file can change them
        self._look_at = float("-inf")
        self._missed = False

    async def headers(self) -> Mapping[str, str]:
        """The headers; raises `Unavailable` where a key or a header cannot be had or cannot be sent."""
        if self._settled is not None:
            return self._settled
        if isinstance(self._api_key, SecretFile):
            return self._with(await self._key_of(self._api_key))
        key = "" if self._api_key is None else self._api_key.get_secret_value().strip()
        self._remember(key)
        self._settled = self._with(key)
        return self._settled

    def _with(self, key: str) -> dict[str, str]:
        headers = ({"Authorization": f"Bearer {key}"} if key else {}) | self._headers
        for name, value in headers.items():
            if not _TOKEN.fullmatch(name):
                raise Unavailable(f"`{self._model}`: {name!r} is no name of a header for its peer")
            if name.lower() in _OURS:
                raise Unavailable(f"`{self._model}`: the header `{name}` for its peer is written by the router itself")
            if not (value.isprintable() and value.isascii()):
                raise Unavailable(f"`{self._model}`: the header `{name}` for its peer is not printable ASCII")
        return headers

    async def _key_of(self, secret: SecretFile) -> str:
        now = self._clock()
        if self._keys and now < self._look_at:
            return self._keys[-1]
        self._look_at = now + FRESH_S  # before the wait: calls meanwhile use the key that there is
        try:
            key = await asyncio.to_thread(read_secret, secret.file)
        except SecretUnreadable as error:
            if not self._keys:
                raise Unavailable(f"`{self._model}`: its api_key: {error}") from error
            if not self._missed:
                self._missed = True
                log.warning("secret.unreadable", model=self._model, error=str(error), effect="the last one is used")
            return self._keys[-1]
        if self._missed or (self._keys and key != self._keys[-1]):
            log.info("secret.read", model=self._model, file=str(secret.file))
        self._missed = False
        self._remember(key)
        return key

    def _remember(self, key: str) -> None:
        if key and (not self._keys or self._keys[-1] != key):
            self._keys.append(key)

    def redact(self, text: str) -> str:
        """`text` with the secrets that were sent lately struck out, for peers that quote them, in JSON or plain."""
        for secret in _longest_first({*self._keys, *self._headers.values()}):
            text = text.replace(secret, "***")
            if "\\" in text:
                text = re.sub(_escaped(secret), "***", text)
        return text


def _escaped(secret: str) -> str:
    """A pattern for the secret with any of its characters escaped, as JSON may have them (RFC 8259, section 7)."""
    return "".join(rf"(?:\\?{re.escape(char)}|\\u00(?i:{ord(char):02x}))" for char in secret)


def _longest_first(secrets: Iterable[str]) -> list[str]:
    """Secrets that can be told from ordinary words, each before any that is a part of it."""
    return sorted((secret for secret in secrets if len(secret) >= _SHORTEST_SECRET), key=len, reverse=True)
