"""`python -m benchmarks.console`: the frames of a page on which a long answer comes; see benchmarks/README.md."""

from __future__ import annotations

import argparse
import asyncio
import re
import shutil
import signal
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from playwright.async_api import Page, async_playwright

from benchmarks.console.writer import MODEL, writing

START_S: Final = 60.0
JANK_MS: Final = 50.0
PROBE: Final = """() => {
  const seen = { frames: [], tasks: [] };
  let last = performance.now();
  const frame = (now) => { seen.frames.push(now - last); last = now; if (!seen.over) requestAnimationFrame(frame); };
  requestAnimationFrame(frame);
  new PerformanceObserver((list) => seen.tasks.push(...list.getEntries().map((task) => task.duration)))
    .observe({ type: "longtask" });
  window.seen = seen;
}"""
"""Times between frames, and tasks of more than 50 ms (https://www.w3.org/TR/longtasks-1/), in milliseconds."""


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


async def watched(page: Page, url: str) -> dict[str, list[float]]:
    """Asks in the chat, and returns what the probe saw until the answer had ended."""
    await page.goto(f"{url}/?model={MODEL}")
    await page.get_by_role("textbox", name="Message", exact=True).fill("Go on")
    await page.evaluate(PROBE)
    await page.keyboard.press("Enter")
    await page.get_by_text("Why this way").wait_for(timeout=0)
    seen: dict[str, Any] = await page.evaluate("() => { seen.over = true; return seen; }")
    return seen


async def measure(how_many: int, per_second: float) -> None:
    """Prints how long frames took while so many tokens came."""
    async with writing(how_many, per_second) as peer, serving(peer) as url, async_playwright() as playwright:
        path = shutil.which("chromium")
        browser = await playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        version = browser.version
        seen = await watched(await browser.new_page(), url)
        await browser.close()
    frames = sorted(seen["frames"])
    print(f"{how_many} tokens at {per_second:g} a second, Chromium {version}: {len(frames)} frames")
    print(f"  median {statistics.median(frames):.1f} ms, 99% within {frames[int(len(frames) * 0.99)]:.1f} ms")
    late = sum(frame > JANK_MS for frame in frames)
    print(f"  longest {frames[-1]:.1f} ms, {late} longer than {JANK_MS:g} ms; long tasks: {len(seen['tasks'])}")


def main() -> None:
    """Reads the arguments and measures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.console", description=__doc__)
    parser.add_argument("--tokens", type=int, default=20_000, help="tokens of the answer (20000)")
    parser.add_argument("--rate", type=float, default=500.0, help="tokens a second (500)")
    given = parser.parse_args()
    asyncio.run(measure(given.tokens, given.rate))


if __name__ == "__main__":
    main()
