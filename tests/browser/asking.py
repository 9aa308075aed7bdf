"""What a person does to ask something, and to see why the answer came as it did."""

from __future__ import annotations

from playwright.async_api import Locator, Page, expect

from tests.browser.chatting import field


async def ask(page: Page, question: str) -> Locator:
    """Asks in the chat, and returns the last answer once it has ended."""
    await field(page).fill(question)
    await page.get_by_role("button", name="Send").click()
    answer = page.locator(".answer").last
    await expect(answer.get_by_text("Why this way")).to_be_visible()
    return answer


async def way_of(answer: Locator) -> dict[str, str]:
    """Opens "Why this way" and returns its steps: what each says, by its name."""
    await answer.get_by_text("Why this way").click()
    return await steps(answer.get_by_role("list", name="The way of this answer"))


async def steps(listed: Locator) -> dict[str, str]:
    """The steps of a list, by their names; one more of a name has a number after it."""
    await listed.wait_for()
    found: dict[str, str] = {}
    for step in await listed.get_by_role("listitem").all():
        name, _, told = (await step.inner_text()).partition("\n")
        found[name] = "\n".join(filter(None, told.split("\n")))
    return found
