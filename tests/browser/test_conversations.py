"""Conversations stay in the browser: they are found, renamed, deleted, taken along and brought back."""

from __future__ import annotations

import json
from pathlib import Path

from playwright.async_api import Locator, Page, expect

from tests.browser.chatting import answers, say
from tests.browser.conftest import Opens
from tests.browser.looks import PHONE


def listed(page: Page) -> Locator:
    return page.get_by_role("complementary", name="Conversations").get_by_role("listitem")


async def more(page: Page, title: str, what: str) -> None:
    """Opens the menu of a conversation and chooses something in it."""
    await page.get_by_label(f"More for {title}").click()
    await page.get_by_role("button", name=what).click()


async def two_conversations(page: Page) -> None:
    await say(page, "About apples")
    await page.get_by_role("button", name="New chat").first.click()
    await expect(answers(page)).to_have_count(0)
    await say(page, "About pears")


async def test_they_are_there_after_a_visit(opens: Opens) -> None:
    page = await opens("/?model=team/plain")
    await two_conversations(page)
    await page.goto("about:blank")
    await page.goto("/")
    await expect(listed(page)).to_have_count(2)
    await expect(answers(page).first).to_contain_text("team/plain was asked: About pears")
    await page.get_by_role("button", name="About apples").click()
    await expect(answers(page).first).to_contain_text("team/plain was asked: About apples")


async def test_they_are_found_by_what_was_said(opens: Opens) -> None:
    page = await opens("/?model=team/plain")
    await two_conversations(page)
    search = page.get_by_role("searchbox", name="Search conversations")
    await search.fill("PLAIN apples asked")
    await expect(listed(page)).to_have_count(1)
    await expect(listed(page)).to_contain_text("About apples")
    await search.fill("bananas")
    await expect(page.get_by_text("No conversation has “bananas” in it.")).to_be_visible()


async def test_they_are_renamed_and_deleted(opens: Opens) -> None:
    page = await opens("/?model=team/plain")
    await two_conversations(page)
    await more(page, "About apples", "Rename")
    await expect(page.get_by_role("textbox", name="Title")).to_be_focused()
    await page.get_by_role("textbox", name="Title").fill("Fruit")
    await page.keyboard.press("Enter")
    await expect(listed(page).nth(1)).to_contain_text("Fruit")
    await more(page, "About pears", "Delete…")
    await page.get_by_role("button", name="Delete for good").click()
    await expect(listed(page)).to_have_count(1)
    await expect(answers(page)).to_have_count(0)  # it was open
    await page.reload()
    await expect(listed(page)).to_have_count(1)
    await expect(listed(page).first).to_contain_text("Fruit")


async def test_they_are_exported_and_imported(opens: Opens, tmp_path: Path) -> None:
    page = await opens("/?model=team/plain")
    await two_conversations(page)
    async with page.expect_download() as waiting:
        await page.get_by_role("button", name="Export all").click()
    file = tmp_path / "all.json"
    await (await waiting.value).save_as(file)
    told = json.loads(file.read_text())
    assert (told["format"], told["version"]) == ("polyroute.conversations", 1)
    assert [each["title"] for each in told["conversations"]] == ["About pears", "About apples"]
    other = await opens("/")
    await other.get_by_label("Import conversations").set_input_files(file)
    await expect(listed(other)).to_have_count(2)
    await expect(answers(other).first).to_contain_text("team/plain was asked: About pears")


async def test_one_is_exported_to_be_read(opens: Opens) -> None:
    page = await opens("/?model=team/plain")
    await say(page, "About apples")
    await page.get_by_label("More for About apples").click()
    async with page.expect_download() as waiting:
        await page.get_by_role("button", name="Export as Markdown").click()
    download = await waiting.value
    assert download.suggested_filename == "about-apples.md"
    assert Path(await download.path()).read_text() == (
        "# About apples\n\n## You\n\nAbout apples\n\n## team/plain\n\nteam/plain was asked: About apples\n"
    )


async def test_a_file_that_is_none_is_refused_with_the_reason(opens: Opens, tmp_path: Path) -> None:
    page = await opens("/")
    for name, text, reason in [
        ("a.json", "{", "the file is no JSON"),
        ("b.json", "{}", "its `format` is not `polyroute.conversations`"),
        ("c.json", '{"format": "polyroute.conversations", "version": 9}', "has version 9; this console reads 1"),
        (
            "d.json",
            '{"format": "polyroute.conversations", "version": 1, "conversations": [{"nodes": [{"id": "x"}]}]}',
            "`conversations[0]`: a node without `id` or `content`",
        ),
    ]:
        (tmp_path / name).write_text(text)
        await page.get_by_label("Import conversations").set_input_files(tmp_path / name)
        await expect(page.get_by_role("alert")).to_contain_text(f"{name}: ")
        await expect(page.get_by_role("alert")).to_contain_text(reason)
    await expect(listed(page)).to_have_count(0)


async def test_on_a_phone_the_list_gives_way_to_what_was_chosen(opens: Opens) -> None:
    page = await opens("/?model=team/plain", PHONE)
    await say(page, "About apples")
    await expect(listed(page)).to_have_count(0)
    await page.get_by_role("button", name="Conversations", exact=True).click()
    await page.get_by_role("button", name="About apples").click()
    await expect(listed(page)).to_have_count(0)
    await expect(answers(page)).to_have_count(1)
