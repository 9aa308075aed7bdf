"""`make screenshots`: the pictures of the docs, taken of the real server with the demo model and scripted peers."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import aiohttp
from PIL import Image
from playwright.async_api import Browser, Page, async_playwright, expect

from tests.browser.looks import DARK, LIGHT, PHONE, Look
from tests.browser.peer import Peer, listening
from tests.e2e.running import Running, serving

MODELS: Final = ("mistralai/Mistral-7B-v0.1", "deepseek-ai/DeepSeek-R1", "microsoft/phi-2")
CONFIG: Final = """\
default_model: demo
models:
  - {{id: demo, type: local}}
  - {{id: demo-int8, type: local, source: demo, quantization: int8}}
  - {{id: mistralai/Mistral-7B-v0.1, type: remote, base_url: "{peer}", api: openai, version: 27d67f1}}
  - {{id: deepseek-ai/DeepSeek-R1, type: remote, base_url: "{peer}", api: openai, version: 56d4cbb}}
  - {{id: microsoft/phi-2, type: remote, base_url: "{peer}", api: openai, version: ef382358}}
routes:
  - id: chat
    sticky_by: [user, request]
    variants:
      - {{name: stable, model: mistralai/Mistral-7B-v0.1}}
      - {{name: trial, model: microsoft/phi-2}}
  - id: assistant
    sticky_by: [user, request]
    variants:
      - {{name: old, model: mistralai/Mistral-7B-v0.1}}
      - {{name: new, model: deepseek-ai/DeepSeek-R1, weight: 0}}
    rollout: {{from: old, to: new, steps: [{{weight: 10%, hold: 1h}}, {{weight: 50%, hold: 1h}}], run: 1}}
"""
LOOKS: Final = (LIGHT, DARK, PHONE)
QUESTION: Final = "Why is HTTP/2 faster than HTTP/1.1?"
LONG: Final = """HTTP/2 sends the requests of a page over **one connection**, side by side:

- **Multiplexing**: many streams share the connection, so a slow answer holds up no other.
- **Header compression**: what was sent once is referred to later (HPACK).
- **Binary frames**: they are cheaper to parse than lines of text.

```python
async with httpx.AsyncClient(http2=True) as client:
    answer = await client.get("https://example.com")
```

On a network that loses packets HTTP/3 does better still, as its streams are independent down to the transport."""
SHORT: Final = """HTTP/2 sends many requests over **one connection**, side by side:

- **Multiplexing**: many streams share the connection, so a slow answer holds up no other.
- **Header compression**: what was sent once is referred to later.

On a network that loses packets the one connection can also be slower."""
MOST_BYTES: Final = 150_000
PAUSE_S: Final = 0.012
COLOURS: Final = 256
CALLS: Final = 60
AT_ONCE: Final = 6
ROUTES: Final = ("chat", "assistant")


async def take(folder: Path) -> None:
    """Takes every picture into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    peer = await listening(MODELS)
    for model, text in zip(MODELS, (LONG, LONG, SHORT), strict=True):
        peer.says(model, *words(text), pause_s=PAUSE_S)
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        file = Path(place) / "models.yaml"
        file.write_text(CONFIG.format(peer=peer.url))
        environ = {"POLYROUTE_STATE_URL": f"sqlite:///{place}/state.db"}
        server = stack.enter_context(serving(Path(place), "--config", str(file), environ=environ))
        await asyncio.to_thread(server.wait_ready)
        async with async_playwright() as playwright:
            path = shutil.which("chromium")
            browser = await playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
            for look in LOOKS:
                await each(browser, server, peer, look, folder)
            await browser.close()
        await asyncio.to_thread(stack.close)
    await peer.scripted.hang_up()


async def each(browser: Browser, server: Running, peer: Peer, look: Look, folder: Path) -> None:
    """The pictures of one look."""
    context = await browser.new_context(base_url=server.url, **look.options)
    for name, scene in (("chat", chat), ("compare", compare), ("operate", operate)):
        page = await context.new_page()
        await scene(page, server)
        save(await page.screenshot(), folder / f"{name}-{look.name}.png")
        await page.close()
    await context.close()


async def chat(page: Page, _server: Running) -> None:
    """An answer, and why it came as it did."""
    await page.goto("/?model=chat")
    await page.get_by_role("textbox", name="Message", exact=True).fill(QUESTION)
    await page.get_by_role("button", name="Send").click()
    why = page.get_by_text("Why this way").last
    await why.click()
    await page.get_by_role("list", name="The way of this answer").scroll_into_view_if_needed()


async def compare(page: Page, _server: Running) -> None:
    """Two variants of an experiment, side by side."""
    await page.goto("/?model=chat#/compare")
    await page.get_by_label("Prompt", exact=True).fill(QUESTION)
    await page.get_by_role("button", name="Ask all").click()
    await expect(page.get_by_text("Why this way")).to_have_count(2)
    await page.locator(".columns").scroll_into_view_if_needed()


async def operate(page: Page, server: Running) -> None:
    """The models with some traffic."""
    await page.goto("/#/operate")
    await traffic(server)


async def traffic(server: Running) -> None:
    """Some callers of the two routes."""
    async with aiohttp.ClientSession() as client:

        async def call(user: int, route: str) -> None:
            messages: list[dict[str, Any]] = [{"role": "user", "content": f"{QUESTION} ({user})"}]
            body = {"model": route, "messages": messages, "user": str(user)}
            async with client.post(f"{server.url}/v1/chat/completions", json=body) as answer:
                answer.raise_for_status()

        for first in range(0, CALLS, AT_ONCE):
            await asyncio.gather(*(call(user, route) for user in range(first, first + AT_ONCE) for route in ROUTES))


def words(text: str) -> list[str]:
    """The text in the parts in which a model might write it."""
    return [part for word in text.split(" ") for part in (word, " ")][:-1]


def save(png: bytes, path: Path) -> None:
    """Writes a picture in few colours, so that it stays small; raises `ValueError` where it does not."""
    with Image.open(BytesIO(png)) as picture:
        picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"{path}: {path.stat().st_size} bytes, limit {MOST_BYTES}")
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    asyncio.run(take(Path(sys.argv[1])))
