"""Values that several sections have: durations, names, shares, and what a section is."""

from __future__ import annotations

import re
from datetime import timedelta
from ipaddress import IPv6Address, ip_address
from typing import Annotated, Any, Final, TypeAlias
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    SerializerFunctionWrapHandler,
)
from pydantic_core import CoreSchema, core_schema

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_LONGEST_HOST = 253  # RFC 1035, section 2.3.4, as text
_NAME = re.compile(r"[^\s\x00-\x1f\x7f]+")

HEADER_KEY: Final = "header:"
"""How a sticky key begins that is the value of a header (HTTP) or of metadata (gRPC); its name follows."""

_ROUTING_KEYS = ("user", "session", "affinity_key", "request")
_HEADER_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")  # what may name both


def parse_duration(value: Any) -> Any:
    """Seconds of `15m`, `30s`, `1h30m` or a bare number of seconds."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, str):
        return value
    parts = _DURATION.findall(value)
    if not parts or "".join(n + u for n, u in parts) != value.strip():
        raise ValueError(f"`{value}` is no duration; write one such as 500ms, 30s, 15m or 1h30m")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def _check_name(value: str) -> str:
    if not _NAME.fullmatch(value) or len(value) > 256:
        raise ValueError("a name has 1 to 256 characters, none of them spaces or control characters")
    return value


def check_authority(url: str) -> None:
    """That a URL's host and port are such as can be looked up and connected to."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise ValueError(f"`{url}`: {error}") from None
    if port == 0:
        raise ValueError(f"`{url}`: no peer listens on port 0")
    if "[" in parts.netloc:
        try:
            IPv6Address(host)
        except ValueError as error:
            raise ValueError(f"`{url}`: {error}") from None
        return
    try:
        name = host.encode("idna").removesuffix(b".")  # as the resolver does
    except UnicodeError:
        name = b""
    if not 0 < len(name) <= _LONGEST_HOST:
        longest = f"{_LONGEST_HOST} characters, and 1 to 63 between dots"
        raise ValueError(f"`{url}`: `{host}` can be no host's name: that has 1 to {longest}")


def _check_sticky_key(value: str) -> str:
    if value in _ROUTING_KEYS:
        return value
    kind, colon, name = value.partition(":")
    header = name.lower()
    if kind + colon != HEADER_KEY:
        raise ValueError(f"`{value}` is none of {', '.join(_ROUTING_KEYS)} and header:NAME")
    if not _HEADER_NAME.fullmatch(header):
        raise ValueError(f"`{name}` names no header; 1 to 64 letters, digits, dashes, dots and underscores do")
    if header.startswith("grpc-") or header.endswith("-bin"):
        raise ValueError(f"`{name}` is a header of gRPC's own, or binary")
    return HEADER_KEY + header


def _host_name(value: str) -> str:
    try:
        return str(ip_address(value.removeprefix("[").removesuffix("]")))
    except ValueError:
        if re.fullmatch(r"[A-Za-z0-9._-]{1,253}", value):
            return value.lower()
    raise ValueError(f"`{value}` is no host's name or address; write it as browsers show it, without scheme and port")


HostName: TypeAlias = Annotated[str, AfterValidator(_host_name)]
Seconds: TypeAlias = Annotated[float, BeforeValidator(parse_duration), Field(gt=0, allow_inf_nan=False)]
Name: TypeAlias = Annotated[str, BeforeValidator(lambda v: _check_name(v) if isinstance(v, str) else v)]
StickyKey: TypeAlias = Annotated[str, AfterValidator(_check_sticky_key)]


class Section(BaseModel):
    """A mapping of the file: frozen, and every unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _word_off(value: Any) -> Any:
    """None for `off`, which YAML 1.1 reads as false where it is bare; nothing at all is a mistake."""
    if value is None:
        raise ValueError("is empty; write `off`, or what it should be")
    return None if value is False or value == "off" else value


class _OrOff:
    """`off` in the file is None here, and None is written as `off`."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        written = core_schema.wrap_serializer_function_ser_schema(_off_word)
        return core_schema.no_info_before_validator_function(_word_off, handler(source), serialization=written)


def _off_word(value: Any, write: SerializerFunctionWrapHandler) -> Any:
    return "off" if value is None else write(value)


OrOff: Final = _OrOff()


def _share(value: Any) -> Any:
    """A part of 1, given as such or in percent: `5%` is 0.05."""
    if isinstance(value, str) and (percent := re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", value)):
        return float(percent[1]) / 100
    return value


FEEDBACK_METRIC: Final = r"^[A-Za-z0-9_.-]{1,64}$"
"""What callers may name their feedback."""

Share: TypeAlias = Annotated[float, BeforeValidator(_share), Field(allow_inf_nan=False)]
