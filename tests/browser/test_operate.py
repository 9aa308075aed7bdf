"""Operating a server in the console, as a person does it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from tests.browser.axe import violations
from tests.browser.conftest import WAIT_MS, Opens
from tests.browser.looks import LOOKS, Look
from tests.browser.operated import SECRET, Operated, operating
from tests.browser.peer import Peer
from tests.browser.watching import Watched

VIEWS = ("models", "load", "experiments/chat", "experiments/rolling", "cache", "configuration")
At: TypeAlias = Callable[[str], Awaitable[Page]]


@pytest_asyncio.fixture(loop_scope="package")
async def operated(tmp_path: Path, shared_peer: Peer) -> AsyncIterator[Operated]:
    """A server of this test's own."""
    async with operating(tmp_path, shared_peer.url) as server:
        yield server


@pytest_asyncio.fixture(loop_scope="package")
async def at(operated: Operated, opens: Opens) -> At:
    """Opens a view of Operate on the test's own server."""
    return lambda view: opens(f"{operated.url}/#/operate/{view}")


@pytest.fixture(autouse=True)
def patient() -> None:
    expect.set_options(timeout=WAIT_MS)


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: look.name)
async def test_every_view_is_accessible_and_fits(opens: Opens, look: Look) -> None:
    page = await opens("/#/operate", look)
    for view in VIEWS:
        await page.goto(f"/#/operate/{view}")
        name = view.split("/")[0].capitalize()
        await expect(page.get_by_role("link", name=name, exact=True)).to_have_attribute("aria-current", "page")
        await expect(page.get_by_role("status")).not_to_contain_text(["Asking"])
        assert await violations(page) == [], view
        assert await page.evaluate("document.documentElement.scrollWidth") <= look.width, view


async def test_a_model_is_loaded_and_unloaded(opens: Opens, demo: None) -> None:
    page = await opens("/#/operate/models")
    card = page.get_by_role("listitem").filter(has=page.get_by_role("heading", name="spare"))
    await card.get_by_role("button", name="Load: spare").click()
    await expect(card.get_by_text("warm", exact=True).first).to_be_visible()
    await card.get_by_role("button", name="Unload: spare").click()
    dialog = page.get_by_role("dialog", name="Unload spare?")
    await dialog.get_by_role("button", name="Cancel").click()
    await expect(dialog).to_be_hidden()
    await card.get_by_role("button", name="Unload: spare").click()
    await dialog.get_by_role("button", name="Unload").click()
    await expect(card.get_by_text("cold", exact=True)).to_be_visible()


async def test_a_model_that_is_away_says_why_and_what_of_it(opens: Opens) -> None:
    page = await opens("/#/operate/models")
    card = page.get_by_role("listitem").filter(has=page.get_by_role("heading", name="team/absent"))
    await expect(card.get_by_text("unhealthy")).to_be_visible()
    await expect(card.get_by_text("cannot connect").first).to_be_visible()
    await expect(card.get_by_role("group").get_by_text("failed", exact=True)).to_be_visible()
    await expect(card.get_by_role("button", name="Reach again: team/absent")).to_be_enabled()


@asynccontextmanager
async def busy(operated: Operated) -> AsyncIterator[None]:
    """Calls come in, one after the other; every other one was answered before."""

    async def call() -> None:
        for i in range(1_000_000):
            await operated.ask(f"question {i % 2 and i}", "chat", "somebody")

    calling = asyncio.create_task(call())
    try:
        yield
    finally:
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)


async def test_charts_follow_the_calls(at: At, operated: Operated) -> None:
    page = await at("load")
    async with busy(operated):
        for figure in (
            r"Calls a second: all [1-9].*, failed 0$",
            r"Time to the whole answer: p50 [\d.]+ m?s, p95 [\d.]+ m?s$",
            r"Time to the first token: p50 [\d.]+ m?s",
            r"Tokens a second: generated [\d.k]*[1-9]",
            r"Answered by the cache: of the calls [\d.]*[1-9]",
        ):
            await expect(page.get_by_role("img", name=re.compile(figure))).to_be_visible()
        await page.get_by_role("combobox", name="Model").select_option("team/terse")
        await expect(page.get_by_role("img", name=re.compile(r"Calls a second: all [\d.]*[1-9]"))).to_be_visible()
        await page.get_by_label("1 min", exact=True).check()
        await expect(page.locator(".chart canvas")).to_have_count(6)
        scrapes = await page.evaluate(
            "performance.getEntriesByType('resource').filter(e => e.name.includes('/metrics'))"
        )
    assert all("name%5B%5D=" in scrape["name"] for scrape in scrapes), "no more than what is drawn is asked for"


async def test_a_rollout_is_paused_resumed_and_rolled_back(at: At, operated: Operated) -> None:
    page = await at("experiments/team/rolling")
    card = page.get_by_role("region", name="Rollout of team/rolling")
    await expect(card.get_by_text("running", exact=True).first).to_be_visible()
    steps = card.get_by_role("list", name="Steps")
    await expect(steps.locator("[aria-current=step]")).to_contain_text("10%")

    await card.get_by_role("button", name="Pause").click()
    await page.get_by_label("Reason").fill("lunch")
    await page.get_by_role("dialog").get_by_role("button", name="Pause").click()
    history = card.get_by_role("list", name="History, newest first")
    await expect(history.get_by_role("listitem").first).to_contain_text("paused (was running), step 1: lunch")

    await card.get_by_role("button", name="Resume").click()
    await page.get_by_role("dialog").get_by_role("button", name="Resume").click()
    await expect(history.get_by_role("listitem").first).to_contain_text("running (was paused)")

    await card.get_by_role("button", name="Roll back").click()
    dialog = page.get_by_role("dialog", name="Roll back the rollout of team/rolling?")
    await dialog.get_by_role("button", name="Roll back").click()
    await expect(dialog, "a reason is asked for").to_be_visible()
    await page.get_by_label("Reason").fill("it rambles")
    await page.get_by_label("Reason").press("Enter")
    await expect(card.get_by_text("rolled back", exact=True).first).to_be_visible()
    await expect(card.get_by_role("button")).to_have_count(0)
    kept = (await operated.call("AdminService/GetRollout", {"route": "team/rolling"}))["rollout"]
    assert (kept["state"], kept.get("weight", 0)) == ("ROLLOUT_STATE_ROLLED_BACK", 0)
    assert [change["reason"] for change in kept["history"]][-1] == "it rambles"


async def test_a_rollout_is_promoted(at: At, operated: Operated) -> None:
    page = await at("experiments/team/rolling")
    card = page.get_by_role("region", name="Rollout of team/rolling")
    await card.get_by_role("button", name="Promote").click()
    await page.get_by_label("Reason").fill("good enough")
    await page.get_by_role("dialog").get_by_role("button", name="Promote").click()
    newest = card.get_by_role("list", name="History").get_by_role("listitem").first
    await expect(newest).to_contain_text(re.compile(r"promoted \(was \w+\), step 2: good enough"))
    plan = await operated.call("ModelService/ExplainRoute", {"request": {"model": "team/rolling", "prompt": "x"}})
    assert plan["attempts"][0]["variant"] == "new"


async def test_a_report_draws_its_intervals(at: At, operated: Operated) -> None:
    await asyncio.gather(*(operated.ask(f"question {i}", "chat", f"user {i}") for i in range(30)))
    page = await at("experiments/chat")
    report = page.get_by_role("region", name="Report on chat")
    rows = report.get_by_role("region", name="Variants").get_by_role("row")
    await expect(rows).to_have_count(3)
    await expect(report.get_by_role("img", name=re.compile(r"^stable: \d.* m?s, between .* and "))).not_to_have_count(0)
    await expect(report.get_by_role("img", name=re.compile(r"^trial less stable: "))).not_to_have_count(0)
    await page.get_by_role("link", name="team/rolling").click()
    await expect(page.get_by_role("region", name="Rollout of team/rolling")).to_be_visible()
    assert page.url.endswith("#/operate/experiments/team/rolling")


async def test_the_cache_is_looked_at_and_emptied(at: At, operated: Operated) -> None:
    for _ in range(3):
        await operated.ask("the same", "team/plain")
    page = await at("cache")
    row = page.get_by_role("row").filter(has=page.get_by_role("rowheader", name="team/plain"))
    await expect(row).to_contain_text("67%")
    await page.get_by_role("combobox", name="Model").select_option("team/plain")
    await page.get_by_role("button", name="Invalidate…").click()
    dialog = page.get_by_role("dialog", name="Invalidate?")
    await expect(dialog).to_contain_text("every answer of team/plain")
    await dialog.get_by_role("button", name="Invalidate", exact=True).click()
    await expect(page.get_by_role("status")).to_contain_text("1 answer removed.")
    await page.get_by_role("combobox", name="What").select_option("key")
    await page.get_by_role("textbox", name="Key").fill("0" * 64)
    await page.get_by_role("button", name="Invalidate…").click()
    await dialog.get_by_role("button", name="Invalidate", exact=True).click()
    await expect(page.get_by_role("status")).to_contain_text("0 answers removed.")


async def test_the_configuration_is_checked_and_reloaded(at: At, operated: Operated) -> None:
    page = await at("configuration")
    shown = page.get_by_role("region", name="Configuration as YAML")
    await expect(shown).to_contain_text("default_model: team/plain")
    await expect(shown).to_contain_text("api_key: '**********'")
    assert SECRET not in await page.content()
    await page.get_by_label("with what the file leaves out").check()
    await expect(shown).to_contain_text("max_messages: 4096")

    operated.write(before="colour: red\n")
    await page.get_by_role("button", name="Check the file").click()
    await expect(page.get_by_text("A mistake; nothing was changed.")).to_be_visible()
    await expect(page.get_by_text("colour: unknown key")).to_be_visible()
    await page.get_by_role("button", name="Reload…").click()
    await page.get_by_role("dialog").get_by_role("button", name="Reload").click()
    await expect(page.get_by_role("heading", name=re.compile("Last reload.*by an operator"))).to_be_visible()
    await expect(page.get_by_text("colour: unknown key")).to_have_count(1)

    operated.write(after="limits: {max_messages: 99}\n")
    await page.get_by_role("button", name="Reload…").click()
    await page.get_by_role("dialog").get_by_role("button", name="Reload").click()
    await expect(page.get_by_text("Changed: no model, but routes or settings.")).to_be_visible()
    await expect(shown).to_contain_text("max_messages: 99")


async def test_who_may_not_operate_is_told_why(at: At, operated: Operated, watched: Watched) -> None:
    watched.allow("403")
    operated.write(after="console: {operate: off}\n")
    await operated.call("AdminService/Reload", {})
    page = await at("cache")
    await expect(page.get_by_role("heading", name="You may not operate this server from here")).to_be_visible()
    await expect(page.get_by_text("operating is switched off on this address")).to_be_visible()
    assert await violations(page) == []
    await page.goto(f"{operated.url}/")
    await expect(page.get_by_role("link", name="Compare")).to_be_visible()
    await expect(page.get_by_role("link", name="Operate")).to_have_count(0)


async def test_a_server_that_goes_away_leaves_what_is_on_the_page(at: At, operated: Operated, watched: Watched) -> None:
    watched.allow("ERR_CONNECTION_REFUSED|ERR_EMPTY_RESPONSE|ERR_CONNECTION_RESET|ERR_INCOMPLETE")
    page = await at("cache")
    await expect(page.get_by_role("rowheader", name="team/plain")).to_be_visible()
    operated.running.process.terminate()
    await expect(page.get_by_role("alert").filter(has_text="cannot be reached").first).to_be_visible()
    await expect(page.get_by_role("rowheader", name="team/plain")).to_be_visible()
    await page.get_by_role("link", name="Load", exact=True).click()
    await expect(page.get_by_text("The server's metrics cannot be read")).to_be_visible()
    await expect(page.get_by_role("img", name="Calls a second")).to_be_visible()
    assert await violations(page) == []
