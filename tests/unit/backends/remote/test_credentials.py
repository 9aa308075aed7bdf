"""Keys reach the peer, follow their file, and never come out again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from polyroute.backends.remote.credentials import Credentials
from polyroute.core.config import RemoteConfig
from polyroute.core.errors import Unavailable


def credentials(**config: Any) -> Credentials:
    return Credentials(RemoteConfig(id="m", type="remote", base_urls=("http://h:1",), **config))


async def test_no_key_no_header() -> None:
    assert await credentials().headers() == {}


async def test_a_key_and_headers() -> None:
    found = await credentials(api_key="sekret", headers={"X-Team": "blue!"}).headers()
    assert found == {"Authorization": "Bearer sekret", "X-Team": "blue!"}


async def test_a_key_in_a_file_is_read_at_each_use(tmp_path: Path) -> None:
    file = tmp_path / "key"
    given = credentials(api_key={"file": file})
    with pytest.raises(Unavailable, match="cannot be read"):
        await given.headers()
    file.write_text("first-key\n")
    assert (await given.headers())["Authorization"] == "Bearer first-key"
    file.write_text("second-key")
    assert (await given.headers())["Authorization"] == "Bearer second-key"
    assert given.redact("first-key and second-key") == "*** and ***"
    file.write_text(" \n")
    with pytest.raises(Unavailable, match="is empty"):
        await given.headers()


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\x00b", "kéy"])
async def test_a_header_that_cannot_be_sent(value: str) -> None:
    for config in ({"api_key": value}, {"headers": {"X-A": value}}):
        with pytest.raises(Unavailable, match="not printable ASCII") as raised:
            await credentials(**config).headers()
        assert value not in raised.value.message


async def test_secrets_are_struck_out() -> None:
    given = credentials(api_key="sekret", headers={"X-Key": "sekret-and-more", "X-Flag": "1"})
    await given.headers()
    assert given.redact("bad key sekret-and-more, sekret; code 1") == "bad key ***, ***; code 1"
