"""The choice of a model: by typing, by keyboard, by address; and what it shows of each."""

from __future__ import annotations

import re

from playwright.async_api import expect

from tests.browser.chatting import answers, choose, model, names, say
from tests.browser.conftest import Opens
from tests.browser.watching import Watched


async def test_models_stand_in_groups_with_how_they_are(opens: Opens, demo: None) -> None:
    page = await opens("/")
    await expect(model(page)).to_have_value("demo")
    await model(page).click()
    for group, some in {
        "Local": "demo spare",
        "Remote": "team/absent team/plain",
        "Routes": "chat rolling safe",
    }.items():
        options = page.get_by_role("group", name=group).get_by_role("option")
        for name in some.split():
            await expect(options.filter(has=page.get_by_text(name, exact=True))).to_have_count(1)
    for name, shown in {
        "demo": "warm.*local · default · 8192 context · version",
        "spare": "cold",
        "team/absent": "unhealthy",
        "rolling": r"rollout \d+%.*team/plain",
        "safe": "then team/plain",
    }.items():
        option = page.get_by_role("option").filter(has=page.get_by_text(name, exact=True))
        await expect(option).to_contain_text(re.compile(shown, re.DOTALL))


async def test_letters_find_models_however_they_are_spread(opens: Opens) -> None:
    page = await opens("/")
    await model(page).click()
    await model(page).fill("ttr")
    await expect(page.get_by_role("option")).to_contain_text(["team/terse"])
    await model(page).fill("wordy")
    await expect(page.get_by_role("option")).to_contain_text(["team/wordy"])
    await model(page).fill("zzz")
    await expect(page.get_by_role("status").filter(has_text="No model or route fits “zzz”")).to_be_visible()
    await model(page).press("Escape")
    await expect(page.get_by_role("listbox")).to_be_hidden()
    await expect(model(page)).to_have_value("demo")


async def test_it_is_used_by_keyboard_alone(opens: Opens) -> None:
    page = await opens("/")
    await model(page).focus()
    await expect(model(page)).to_have_attribute("aria-expanded", "false")
    await page.keyboard.press("ArrowDown")
    await expect(model(page)).to_have_attribute("aria-expanded", "true")
    all_of = await names(page)
    for key, place in [("ArrowDown", 1), ("PageDown", 9), ("PageUp", 1), ("ArrowUp", 0), ("ArrowUp", -1)]:
        await page.keyboard.press(key)
        option = page.get_by_role("option").nth(place)
        await expect(model(page)).to_have_attribute("aria-activedescendant", await option.get_attribute("id") or "")
        await expect(option).to_be_in_viewport()
    await page.keyboard.press("Enter")
    await expect(model(page)).to_have_value(all_of[-1])
    await expect(model(page)).to_be_focused()


async def test_the_address_leads_to_a_model_and_follows_the_choice(opens: Opens) -> None:
    page = await opens("/?model=team/terse")
    await expect(model(page)).to_have_value("team/terse")
    answer = await say(page, "Hello")
    await expect(answer).to_contain_text("team/terse was asked: Hello")
    await choose(page, "plain")
    await page.wait_for_url("**/?model=team/plain")


async def test_an_address_to_a_model_that_is_not_there_says_so(opens: Opens) -> None:
    page = await opens("/?model=team/gone")
    await expect(page.get_by_role("alert")).to_have_text("No model or route is named team/gone. Choose another.")
    await choose(page, "plain")
    await expect(page.get_by_role("alert")).to_have_count(0)


async def test_an_address_to_another_model_begins_a_conversation(opens: Opens) -> None:
    page = await opens("/?model=team/plain")
    await say(page, "Hello")
    await page.goto("/?model=team/wordy")
    await expect(model(page)).to_have_value("team/wordy")
    await expect(answers(page)).to_have_count(0)
    await expect(page.get_by_role("button", name="Hello")).to_be_visible()


async def test_favourites_and_recent_ones_come_first_and_are_kept(opens: Opens, watched: Watched) -> None:
    watched.allow("icon.svg: net::ERR_ABORTED")  # the page is left before its picture is there
    page = await opens("/")
    await choose(page, "team/wordy")
    await page.get_by_role("button", name="Favourite").click()
    await choose(page, "team/terse")
    await page.reload()
    await model(page).click()
    await page.get_by_role("option").first.wait_for()
    assert (await names(page))[:2] == ["team/wordy", "team/terse"]
    groups = await page.get_by_role("group").evaluate_all("all => all.map(each => each.firstChild.textContent)")
    assert groups == ["Favourites", "Recent", "Local", "Remote", "Routes"]
