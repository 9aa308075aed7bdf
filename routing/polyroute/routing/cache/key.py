"""What an answer is stored under: everything that can change it, in one canonical form."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from enum import Enum
from functools import cache, lru_cache
from typing import Any

import msgspec
import orjson

from polyroute.core.request import Request, Sampling

FORMAT = 1
"""Raised whenever the encoding changes its meaning, so that old entries are no longer found."""

EXCLUDED = frozenset({"model", "request_id", "routing", "cache", "labels"})
"""The fields of `Request` that cannot change an answer (`model` is replaced by the ID of the model that answers).
Every other field counts, those of a later version too."""


def canonical(model: str, version: str, fingerprint: str, request: Request, user: str = "", tenant: str = "") -> bytes:
    """The full key: JSON with sorted keys, in which `1` and `1.0` are one number and None is not a default.

    `user` is the end user where the model is told who it is, as peers are. `tenant` is whose the call is, where callers
    have to say so and prove it. `fingerprint` stands for the options that the deployment runs the model with.
    """
    counted = _fields(request, _counted(type(request)))
    whole = {"format": FORMAT, "model": model, "version": version, "deployment": fingerprint, "request": counted}
    if user:
        whole["user"] = user
    if tenant:
        whole["tenant"] = tenant
    try:
        return _as_long_as_it_is(orjson.dumps(whole, option=orjson.OPT_SORT_KEYS))
    except TypeError:  # what only the standard library can write: half a surrogate, an integer of more than 64 bits
        return _encode(whole).encode()


def digest(key: bytes) -> str:
    """The short key: SHA-256 of the full one, in hexadecimal."""
    return hashlib.sha256(key).hexdigest()


def _as_long_as_it_is(written: bytes) -> bytes:
    """A copy: what orjson returns keeps the room that it was written in, 4 KB at least, and keys are kept for long."""
    return bytes(memoryview(written))


@cache
def _counted(kind: Any) -> tuple[str, ...]:
    return tuple(name for name in kind.__struct_fields__ if name not in EXCLUDED)


_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode
_AS_THEY_ARE = frozenset({str, int, bool, type(None)})


@cache
def _names(kind: Any) -> tuple[str, ...]:
    """The fields of a struct; none of anything else."""
    return kind.__struct_fields__ if issubclass(kind, msgspec.Struct) else ()


def _plain(value: Any) -> Any:
    kind: Any = type(value)
    if kind in _AS_THEY_ARE:
        return value
    if kind is Sampling:
        return _plain_sampling(value)
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if names := _names(kind):
        return _fields(value, names)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, Enum):
        return value.name
    return value


@lru_cache(maxsize=256)
def _plain_sampling(value: Sampling) -> dict[str, Any]:
    """As any other struct; few of these differ among many requests. To be read only."""
    return _fields(value, _names(Sampling))


def _fields(value: Any, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: item if type(item := getattr(value, name)) in _AS_THEY_ARE else _plain(item) for name in names}
