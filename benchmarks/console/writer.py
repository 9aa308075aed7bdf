"""A peer that writes a long answer in markdown at a steady pace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count, islice
from typing import Final

import orjson
from aiohttp import web

MODEL: Final = "writer"
TICK_S: Final = 0.01
_PARAGRAPH: Final = (
    "Every answer is a stream of **parts**, and each part is shown as soon as it is there, within the next frame. "
    "A block that is complete is left alone, `however` long the answer becomes, and only the last one is made anew."
)
_LIST: Final = "\n".join(f"{n}. point {n} of the list, with a [link](https://example.com/{n})" for n in range(1, 9))
_CODE: Final = (
    "```python\ndef step(frame: int) -> int:\n    return frame + 1\n\n\nfor frame in range(60):\n    step(frame)\n```"
)


def tokens() -> Iterator[str]:
    """The answer without end, in parts of about a word."""
    for section in count(1):
        for block in (f"## Section {section}", _PARAGRAPH, _LIST, _PARAGRAPH, _CODE):
            for word in block.split(" "):
                yield f"{word} "
            yield "\n\n"


@asynccontextmanager
async def writing(how_many: int, per_second: float) -> AsyncIterator[str]:
    """A peer that answers with so many tokens at that pace, whoever asks; yields its URL."""

    async def models(_http: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": MODEL}]})

    async def chat(http: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(http)
        clock = asyncio.get_running_loop().time
        begun, sent, left = clock(), 0, islice(tokens(), how_many)
        while sent < how_many:
            due = min(how_many, int((clock() - begun) * per_second)) - sent
            await response.write(b"".join(_event({"delta": {"content": next(left)}}) for _ in range(due)))
            sent += due
            await asyncio.sleep(TICK_S)
        usage = {"prompt_tokens": 1, "completion_tokens": how_many}
        await response.write(_event({"delta": {}, "finish_reason": "stop"}) + _data({"choices": [], "usage": usage}))
        await response.write(b"data: [DONE]\n\n")
        return response

    app = web.Application()
    app.add_routes([web.get("/v1/models", models), web.post("/v1/chat/completions", chat)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


def _event(choice: dict[str, object]) -> bytes:
    return _data({"choices": [{"index": 0, **choice}]})


def _data(body: dict[str, object]) -> bytes:
    return b"data: %b\n\n" % orjson.dumps(body)
