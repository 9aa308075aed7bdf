"""What a person does in the console's chat, by the names and roles that a screen reader knows."""

from __future__ import annotations

from playwright.async_api import Locator, Page, expect


def messages(page: Page) -> Locator:
    """The region with everything that was said."""
    return page.get_by_role("region", name="Messages")


def answers(page: Page) -> Locator:
    """The answers that are shown, oldest first."""
    return page.get_by_role("article", name="Answer of")


def field(page: Page) -> Locator:
    """Where the next message is written."""
    return page.get_by_role("textbox", name="Message", exact=True)


def model(page: Page) -> Locator:
    """The choice of a model."""
    return page.get_by_role("combobox", name="Model")


async def send(page: Page, text: str) -> None:
    """Writes a message and sends it, by keyboard."""
    await field(page).fill(text)
    await expect(page.get_by_role("button", name="Send")).to_be_enabled()
    await field(page).press("Enter")


async def say(page: Page, text: str) -> Locator:
    """Sends a message; returns its answer once that has ended."""
    known = await answers(page).count()
    await send(page, text)
    answer = answers(page).nth(known)
    await answer.get_by_role("button", name="Ask again").wait_for()
    return answer


async def choose(page: Page, typed: str) -> None:
    """Chooses the model that fits what is typed best, by keyboard."""
    await model(page).click()
    await model(page).fill(typed)
    await page.get_by_role("option").first.wait_for()
    await model(page).press("Enter")


async def names(page: Page) -> list[str]:
    """What the picker offers, in order."""
    return [text.split("\n")[0].strip(" ★") for text in await page.get_by_role("option").all_inner_texts()]
