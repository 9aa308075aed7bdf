"""The page of comparisons: its address leads back to it, it keeps what is on it, and it says how it stands."""

from __future__ import annotations

import asyncio
import re

import pytest
from playwright.async_api import Page, Route, expect

from tests.browser.asking import ask
from tests.browser.axe import violations
from tests.browser.conftest import Opens
from tests.browser.looks import LOOKS, Look
from tests.browser.peer import Peer
from tests.browser.watching import Watched

LISTING = "**/ListModels"


async def chosen(page: Page) -> list[str]:
    """The models that are compared, in order."""
    fields = page.get_by_role("combobox", name=re.compile("^Model"))
    await fields.first.wait_for()
    return [await field.input_value() for field in await fields.all()]


async def test_its_address_leads_to_the_same_models_and_variants(opens: Opens) -> None:
    page = await opens("/#/compare?with=team/wordy&with=chat@trial&with=team/terse")
    assert await chosen(page) == ["team/wordy", "chat", "team/terse"]
    await expect(page.get_by_label("Variant 2")).to_have_value("trial")
    await page.get_by_label("Variant 2").select_option("stable")
    await page.get_by_role("button", name="Remove number 3").click()
    await expect(page).to_have_url(re.compile(r"/#/compare\?with=team/wordy&with=chat@stable$"))
    await page.goto("/#/compare?with=team/plain&with=team/terse")
    await expect(page.get_by_role("combobox", name="Model 2")).to_have_value("team/terse")
    assert await chosen(page) == ["team/plain", "team/terse"]


async def test_a_link_to_what_is_not_there_says_so(opens: Opens) -> None:
    page = await opens("/#/compare?with=team/wordy&with=nobody&with=chat@none")
    await expect(page.get_by_role("alert")).to_have_text("No model or variant is named nobody, chat@none.")
    names = await chosen(page)
    assert names[0] == "team/wordy"
    assert len(names) == 2


async def test_what_is_on_it_is_there_after_a_look_at_another_page(opens: Opens, peer: Peer) -> None:
    page = await opens("/?model=team/wordy")
    await ask(page, "Hello")
    await page.get_by_role("link", name="Compare").click()
    assert await chosen(page) == ["chat", "chat"], "what the chat is about says nothing of who is compared"
    await page.get_by_label("Prompt", exact=True).fill("Who?")
    await page.get_by_label("Blind").check()
    await page.get_by_role("button", name="Ask all").click()
    await page.get_by_role("button", name="None is good").click()
    await page.get_by_role("link", name="Chat").click()
    await expect(page).to_have_url(re.compile(r"/\?model=team/wordy#/$"))
    await page.go_back()
    await expect(page.get_by_label("Prompt", exact=True)).to_have_value("Who?")
    await expect(page.get_by_role("article")).to_have_count(2)
    await expect(page.get_by_text("You found none good.")).to_be_visible()


async def test_it_waits_fails_and_recovers(opens: Opens, watched: Watched) -> None:
    watched.allow("ListModels")
    watched.allow("net::ERR_FAILED|net::ERR_ABORTED|status of 500")
    page = await opens("/")
    there = asyncio.Event()

    async def after(route: Route) -> None:
        await there.wait()
        await route.fulfill(status=500, json={"code": "internal", "message": "out of order"})

    await page.route(LISTING, after)
    await page.goto("/#/compare")
    await page.reload()
    await expect(page.get_by_role("status").filter(has_text="Asking for the models")).to_be_visible()
    there.set()
    await expect(page.get_by_text("The models are not known: out of order")).to_be_visible()
    await page.unroute(LISTING)
    await page.route(LISTING, lambda route: route.abort())
    await page.get_by_role("button", name="Ask again").click()
    await expect(page.get_by_role("complementary", name="Connection")).to_contain_text("cannot be reached")
    await page.unroute(LISTING)
    await page.get_by_role("button", name="Try now").click()
    await expect(page.get_by_label("Prompt", exact=True)).to_be_visible()
    await expect(page.get_by_role("complementary", name="Connection")).to_be_hidden()
    await page.route(LISTING, lambda route: route.abort())
    await expect(page.get_by_role("complementary", name="Connection")).to_be_visible()
    await expect(page.get_by_label("Prompt", exact=True)).to_be_visible()


async def test_a_server_without_models_says_so(opens: Opens, watched: Watched) -> None:
    watched.allow("net::ERR_ABORTED")  # the page is left before all of it is there
    page = await opens("/")
    await page.route(LISTING, lambda route: route.fulfill(json={}))
    await page.goto("/#/compare")
    await page.reload()
    await expect(page.get_by_text("This server has no models.")).to_be_visible()


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: look.name)
async def test_axe_finds_nothing_in_it_while_there_are_no_models(opens: Opens, watched: Watched, look: Look) -> None:
    watched.allow("ListModels|net::ERR_FAILED|net::ERR_ABORTED")
    page = await opens("/#/compare?with=nobody", look)
    await page.get_by_role("alert").wait_for()
    assert await violations(page) == []
    await page.route(LISTING, lambda route: route.abort())
    await page.reload()
    await page.get_by_text("The models are not known").wait_for()
    assert await violations(page) == []
