"""Keys reach the peer, follow their file, and never come out again."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from polyroute.backends.remote.credentials import FRESH_S, Credentials
from polyroute.core.config import RemoteConfig
from polyroute.core.errors import Unavailable


def credentials(clock: Callable[[], float] = time.monotonic, **config: Any) -> Credentials:
    return Credentials(RemoteConfig(id="m", type="remote", base_urls=("http://h:1",), **config), clock=clock)


async def test_no_key_no_header() -> None:
    assert await credentials().headers() == {}


async def test_a_key_and_headers() -> None:
    found = await credentials(api_key="sekret", headers={"X-Team": "blue!"}).headers()
    assert found == {"Authorization": "Bearer sekret", "X-Team": "blue!"}


async def test_a_key_follows_its_file(tmp_path: Path) -> None:
    now = [0.0]
    file = tmp_path / "key"
    given = credentials(api_key={"file": file}, clock=lambda: now[0])
    file.write_text("first-key\n")
    assert (await given.headers())["Authorization"] == "Bearer first-key"
    file.write_text("second-key")
    assert (await given.headers())["Authorization"] == "Bearer first-key"
    now[0] += FRESH_S
    assert (await given.headers())["Authorization"] == "Bearer second-key"
    assert given.redact("first-key and second-key") == "*** and ***"


async def test_the_last_key_is_used_while_its_file_has_none(tmp_path: Path) -> None:
    now = [0.0]
    file = tmp_path / "key"
    given = credentials(api_key={"file": file}, clock=lambda: now[0])
    for content in (None, " \n"):
        if content is not None:
            file.write_text(content)
        with pytest.raises(Unavailable, match="cannot be read" if content is None else "is empty"):
            await given.headers()
    file.write_text("first-key")
    assert (await given.headers())["Authorization"] == "Bearer first-key"
    file.unlink()
    with capture_logs() as logs:
        for _ in range(3):
            now[0] += FRESH_S
            assert (await given.headers())["Authorization"] == "Bearer first-key"
        file.write_text("second-key")
        now[0] += FRESH_S
        assert (await given.headers())["Authorization"] == "Bearer second-key"
    assert [entry["event"] for entry in logs] == ["secret.unreadable", "secret.read"]
    assert "-key" not in str(logs)


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\x00b", "kéy"])
async def test_a_header_that_cannot_be_sent(value: str) -> None:
    for config in ({"api_key": value}, {"headers": {"X-A": value}}):
        with pytest.raises(Unavailable, match="not printable ASCII") as raised:
            await credentials(**config).headers()
        assert value not in raised.value.message


@pytest.mark.parametrize("name", ["", "X A", "X:A", "X-A\r\nX-Evil", "é"])
async def test_a_header_whose_name_is_none(name: str) -> None:
    with pytest.raises(Unavailable, match="is no name of a header"):
        await credentials(headers={name: "1"}).headers()


@pytest.mark.parametrize("name", ["Content-Length", "transfer-encoding"])
async def test_a_header_that_says_where_a_request_ends(name: str) -> None:
    with pytest.raises(Unavailable, match="is written by the router itself"):
        await credentials(headers={name: "1"}).headers()


async def test_secrets_are_struck_out() -> None:
    given = credentials(api_key="sekret", headers={"X-Key": "sekret-and-more", "X-Flag": "1"})
    await given.headers()
    assert given.redact("bad key sekret-and-more, sekret; code 1") == "bad key ***, ***; code 1"


@pytest.mark.parametrize(
    "quoted",
    ['a/b+"c"\\=', r"a\/b+\"c\"\\=", r"a\u002Fb\u002b\"c\"\\\u003d", r"\u0061/b+\u0022c\"\u005c="],
    ids=["plain", "slashes", "as HTML may hold it", "any"],
)
async def test_a_key_that_comes_back_escaped_is_struck_out(quoted: str) -> None:
    given = credentials(api_key='a/b+"c"\\=')
    await given.headers()
    assert given.redact(f'{{"message": "not {quoted}."}}') == '{"message": "not ***."}'
