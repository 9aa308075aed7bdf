"""`python -m benchmarks.console`: the frames of a page on which a long answer comes; see benchmarks/README.md."""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import shutil
import signal
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from playwright.async_api import Page, async_playwright

from benchmarks.console.writer import MODEL, writing

START_S: Final = 60.0
JANK_MS: Final = 50.0
PROBE: Final = """() => {
  const seen = { frames: [] };
  let last = performance.now();
  const frame = (now) => { seen.frames.push(now - last); last = now; if (!seen.over) requestAnimationFrame(frame); };
  requestAnimationFrame(frame);
  window.seen = seen;
}"""
"""Times between frames, in milliseconds."""
TASK: Final = "ThreadControllerImpl::RunTask"
"""What Chromium's trace calls all that a thread does in one go; a frame is one: script, layout and paint."""


@asynccontextmanager
async def serving(peer: str) -> AsyncIterator[str]:
    """A server process with the peer's model; yields the console's URL."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "models.yaml"
        file.write_text(f"models: [{{id: {MODEL}, type: remote, base_url: '{peer}', api: openai, version: '1'}}]\n")
        anywhere = [f"--{name}-address=127.0.0.1:0" for name in ("grpc", "http", "admin")]
        command = [sys.executable, "-m", "polyroute.server", "--config", str(file), "--log-format", "json", *anywhere]
        process = await asyncio.create_subprocess_exec(
            *command,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={"POLYROUTE_CACHE_DIR": folder, "POLYROUTE_STATE_URL": f"sqlite:///{folder}/state.db"},
        )
        try:
            assert process.stdout is not None
            async with asyncio.timeout(START_S):
                while not (found := re.search(rb'"http": ?"([^"]+)"', await process.stdout.readline())):
                    pass
            yield f"http://{found[1].decode()}"
        finally:
            process.send_signal(signal.SIGTERM)
            await process.communicate()


async def watched(page: Page, url: str) -> list[float]:
    """Asks in the chat, and returns the times between frames until the answer had ended, in milliseconds."""
    await page.goto(f"{url}/?model={MODEL}")
    await page.get_by_role("textbox", name="Message", exact=True).fill("Go on")
    await page.evaluate(PROBE)
    await page.keyboard.press("Enter")
    await page.get_by_text("Why this way").wait_for(timeout=0)
    frames: list[float] = await page.evaluate("() => { seen.over = true; return seen.frames; }")
    return frames


def tasks(trace: bytes) -> list[float]:
    """Processor time of each task of the page's own thread, in milliseconds, from a trace of Chromium's.

    Unlike times between frames, it says what the page asks for, whatever else the machine has to do.
    """
    events = json.loads(trace)["traceEvents"]
    main = {(event["pid"], event["tid"]) for event in events if event.get("args") == {"name": "CrRendererMain"}}
    return [
        event.get("tdur", 0) / 1000
        for event in events
        if event["name"] == TASK and event.get("ph") == "X" and (event["pid"], event["tid"]) in main
    ]


async def measure(how_many: int, per_second: float) -> None:
    """Prints how long frames took while so many tokens came."""
    async with writing(how_many, per_second) as peer, serving(peer) as url, async_playwright() as playwright:
        path = shutil.which("chromium")
        browser = await playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        version = browser.version
        page = await browser.new_page()
        await browser.start_tracing(page=page, categories=["toplevel"])
        frames = sorted(await watched(page, url))
        work = sorted(tasks(await browser.stop_tracing()))
        await browser.close()
    print(f"{how_many} tokens at {per_second:g} a second, Chromium {version}: {len(frames)} frames")
    print(f"  median {statistics.median(frames):.1f} ms, 99% within {frames[int(len(frames) * 0.99)]:.1f} ms")
    late = sum(frame > JANK_MS for frame in frames)
    print(f"  longest {frames[-1]:.1f} ms, {late} longer than {JANK_MS:g} ms")
    print(f"  processor time of the page: {sum(work) / 1000:.1f} s, longest task {work[-1]:.1f} ms")


def main() -> None:
    """Reads the arguments and measures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.console", description=__doc__)
    parser.add_argument("--tokens", type=int, default=20_000, help="tokens of the answer (20000)")
    parser.add_argument("--rate", type=float, default=500.0, help="tokens a second (500)")
    given = parser.parse_args()
    asyncio.run(measure(given.tokens, given.rate))


if __name__ == "__main__":
    main()
