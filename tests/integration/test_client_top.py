"""`polyroute top` as its user sees it, over a real server."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from polyroute.backends.echo import EchoBackend
from tests.integration.grpc_serving import WAIT_S, serving


async def top(*arguments: str) -> tuple[int | None, str, str]:
    """Exit code, output and errors."""
    command = (sys.executable, "-c", "from polyroute.client.cli import main; main()", "top", *arguments)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
    out, err = await asyncio.wait_for(process.communicate(), WAIT_S)
    return process.returncode, out.decode(), err.decode()


async def test_a_table_of_every_model(tmp_path: Path) -> None:
    async with serving(EchoBackend("one"), EchoBackend("two"), folder=tmp_path) as at:
        address = str(at.server.http_address)

        async def talk() -> None:
            while True:
                await at.text(model="one")

        talking = asyncio.create_task(talk())
        code, out, _ = await top("-a", address, "--interval", "0.5", "--json")
        _, table, _ = await top("-a", f"http://{address}/", "--interval", "0.2", "--once")
        talking.cancel()
    assert code == 0
    one, two = json.loads(out)
    assert (one["model"], two["model"], two["calls"], two["errors"]) == ("one", "two", 0, None)
    assert one["calls"] > 0
    assert one["errors"] == one["hits"] == 0
    assert one["first_token_p99_s"] > 0
    assert [line.split()[:1] for line in table.splitlines()][-2:] == [["one"], ["two"]], table


async def test_what_is_no_server_is_told_in_one_line(tmp_path: Path) -> None:
    async with serving(EchoBackend("one"), folder=tmp_path) as at:
        code, _, err = await top("-a", f"{at.server.http_address}/v1", "--once")
        assert (code, err.count("\n")) == (1, 1)
        assert "answers 404; is it the HTTP address of a server?" in err
        gone = str(at.server.http_address)
    code, _, err = await top("-a", gone, "--once")
    assert (code, err.count("\n")) == (1, 1)
    assert f"http://{gone}/metrics cannot be reached" in err
    assert "`polyroute serve` starts one" in err
