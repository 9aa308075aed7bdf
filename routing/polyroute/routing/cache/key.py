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

_WORDS = frozenset({"prompt", "messages", "stop", "tool_choice"})
"""The fields that hold text and whole numbers, and nothing else at any depth: these have one form as they are."""


def canonical(model: str, version: str, fingerprint: str, request: Request, user: str = "", tenant: str = "") -> bytes:
    """The full key: JSON with sorted keys, in which `1` and `1.0` are one number and None is not a default.

    `user` is the end user where the model is told who it is, as peers are. `tenant` is whose the call is, where callers
    have to say so and prove it. `fingerprint` stands for the options that the deployment runs the model with.
    """
    words, others = _counted(type(request))
    whole = {"format": FORMAT, "model": model, "version": version, "deployment": fingerprint}
    if user:
        whole["user"] = user
    if tenant:
        whole["tenant"] = tenant
    try:
        counted = {name: getattr(request, name) for name in words}
        for name in others:
            counted[name] = _in_one_form(getattr(request, name))
        whole["request"] = counted
        return _as_long_as_it_is(_in_order(whole))
    except (TypeError, UnicodeEncodeError):  # an integer of more than 64 bits, half a surrogate
        whole["request"] = _fields(request, words + others)
        return _encode(whole).encode()


def digest(key: bytes) -> str:
    """The short key: SHA-256 of the full one, in hexadecimal."""
    return hashlib.sha256(key).hexdigest()


def _as_long_as_it_is(written: bytes) -> bytes:
    """A copy: what msgspec returns keeps the room that it was written in, and keys are kept for long."""
    return bytes(memoryview(written))


@cache
def _counted(kind: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The fields that count: those of words, and the others."""
    names = [name for name in kind.__struct_fields__ if name not in EXCLUDED]
    return tuple(name for name in names if name in _WORDS), tuple(name for name in names if name not in _WORDS)


_in_order = msgspec.json.Encoder(order="sorted").encode
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode
_AS_THEY_ARE = frozenset({str, int, bool, type(None)})
_EMPTY = frozenset({tuple, list, dict})


def _in_one_form(value: Any) -> Any:
    """A value which may be written in several ways, such as `1` and `1.0`, as `_in_order` writes it in one."""
    kind = type(value)
    if kind is Sampling:
        return _written_sampling(value)
    return value if value is None or (kind in _EMPTY and not value) else _written(value)


def _written(value: Any) -> msgspec.Raw:
    return msgspec.Raw(orjson.dumps(_plain(value), option=orjson.OPT_SORT_KEYS))


@lru_cache(maxsize=256)
def _written_sampling(value: Sampling) -> msgspec.Raw:
    """As any other struct; few of these differ among many requests."""
    return _written(value)


@cache
def _names(kind: Any) -> tuple[str, ...]:
    """The fields of a struct; none of anything else."""
    return kind.__struct_fields__ if issubclass(kind, msgspec.Struct) else ()


def _plain(value: Any) -> Any:
    kind: Any = type(value)
    if kind in _AS_THEY_ARE:
        return value
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


def _fields(value: Any, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: item if type(item := getattr(value, name)) in _AS_THEY_ARE else _plain(item) for name in names}
