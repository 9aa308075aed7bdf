"""Models and variants are compared side by side: sent together, measured, told apart word by word, voted on blindly."""

from __future__ import annotations

import asyncio
import json
import re

import pytest
from playwright.async_api import Locator, Page, expect

from polyroute.client.admin import AdminClient
from polyroute.client.operations import VariantReport
from tests.browser.conftest import Opens
from tests.browser.peer import Peer, speaking
from tests.browser.watching import Watched
from tests.e2e.running import Running
from tests.integration.peers import until

VARIANTS = ("chat · stable", "chat · trial")


async def comparing(opens: Opens, *models: str) -> Page:
    """The page as it is for somebody who compared these models the last time."""
    page = await opens()
    kept = json.dumps([{"model": model, "variant": ""} for model in models])
    await page.evaluate("(kept) => localStorage.setItem('polyroute.compare.choices', kept)", kept)
    await page.get_by_role("link", name="Compare").click()
    return page


async def compare(page: Page, question: str, *, blind: bool = False) -> None:
    """Sends a question to all that are chosen."""
    await page.get_by_label("Prompt", exact=True).fill(question)
    if blind:
        await page.get_by_label("Blind").check()
    await page.get_by_role("button", name="Ask all").click()


def column(page: Page, name: str) -> Locator:
    return page.get_by_role("article", name=name, exact=True)


async def test_the_variants_of_an_experiment_answer_one_prompt_side_by_side(opens: Opens, peer: Peer) -> None:
    page = await opens("/?model=chat#/compare")
    await compare(page, "Who are you?")
    for name, model in zip(VARIANTS, ("team/plain", "team/terse"), strict=True):
        mine = column(page, name)
        await expect(mine.get_by_text(f"{model} was asked: Who are you?")).to_be_visible()
        figures = mine.locator(".figures")
        await expect(figures).to_contain_text(re.compile(r"First token\s*[\d.]+ m?s"))
        await expect(figures).to_contain_text(re.compile(r"Tokens\s*3 \+ 6"))
        await expect(figures).to_contain_text(re.compile(r"Cache\s*not asked"))
        await expect(figures).to_contain_text(re.compile(rf"Route\s*chat → \w+ → {model}"))
        await mine.get_by_text("Why this way").click()
        await expect(mine).to_contain_text(re.compile(r"pinned to \w+ by the request"))
    assert sorted(asked.json["model"] for asked in peer.asked) == ["team/plain", "team/terse"]


async def test_words_that_differ_are_marked(opens: Opens, peer: Peer) -> None:
    peer.says("team/plain", "The quick brown ", "fox jumps.")
    peer.says("team/terse", "The slow brown ", "fox sleeps.")
    page = await opens("/?model=chat#/compare")
    await compare(page, "A fox?")
    diff = page.get_by_role("region", name="Differences")
    await expect(diff.locator("del")).to_have_text(["quick", "jumps"])
    await expect(diff.locator("ins")).to_have_text(["slow", "sleeps"])
    await expect(diff.get_by_role("status")).to_have_text(
        "2 words and marks are only in the first, 2 only in the second, 4 in both."
    )
    await diff.get_by_label("to").select_option("chat · stable")
    await expect(diff.get_by_text("They are the same, word by word.")).to_be_visible()


async def test_panes_scroll_together_until_told_not_to(opens: Opens, peer: Peer) -> None:
    peer.says("team/plain", *(f"line {n}\n\n" for n in range(60)))
    peer.says("team/terse", *(f"row {n}\n\n" for n in range(90)))
    page = await opens("/?model=chat#/compare")
    await compare(page, "Go on")
    panes = [page.get_by_role("region", name=f"Answer of {name}") for name in VARIANTS]
    await expect(panes[0].get_by_text("line 59")).to_be_attached()
    await expect(panes[1].get_by_text("row 89")).to_be_attached()
    where = "(e) => e.scrollTop / (e.scrollHeight - e.clientHeight)"
    await panes[0].focus()
    await page.keyboard.press("End")
    await page.wait_for_function("() => [...document.querySelectorAll('.pane')].every((e) => e.scrollTop > 0)")
    await page.wait_for_function(f"(e) => ({where})(e) > 0.98", arg=await panes[1].element_handle())
    await page.get_by_label("Scroll together").uncheck()
    await panes[0].focus()
    await page.keyboard.press("Home")
    await page.wait_for_function("(e) => e.scrollTop === 0", arg=await panes[0].element_handle())
    assert await panes[1].evaluate(where) > 0.9


async def test_models_are_added_up_to_four_and_removed_down_to_two(opens: Opens) -> None:
    page = await opens("/?model=team/plain#/compare")
    add = page.get_by_role("button", name="Add another")
    await add.click()
    await add.click()
    await expect(add).to_be_disabled()
    await page.get_by_role("button", name="Remove number 4").click()
    await page.get_by_role("button", name="Remove number 1").click()
    await expect(page.get_by_role("button", name=re.compile("Remove"))).to_have_count(0)
    await expect(page.get_by_role("group", name=re.compile("Number"))).to_have_count(2)


async def votes(server: Running) -> dict[str, VariantReport]:
    async with AdminClient(server.admin) as admin:
        report = await admin.experiment_report("chat", timeout=60)
    return {variant.name: variant for variant in report.pinned}


@pytest.mark.parametrize(("button", "parts"), [("Answer 1", {1.0, 0.0}), ("Equally good", {0.5})])
async def test_a_blind_vote_lands_as_feedback_on_the_experiment(
    opens: Opens, peer: Peer, server: Running, button: str, parts: set[float]
) -> None:
    before = await votes(server)
    peer.says("team/plain", "One answer")
    peer.says("team/terse", "Another one")
    page = await opens("/?model=chat#/compare")
    await compare(page, "Which is better?", blind=True)
    ballot = page.get_by_role("group", name="Which answer is best?")
    await expect(ballot).to_be_visible()
    articles = await page.get_by_role("article").all_inner_texts()
    assert len(articles) == 2
    assert not re.search("chat|stable|trial|team|First token|Why", " ".join(articles)), "nothing tells whose they are"
    await ballot.get_by_role("button", name=button).click()
    await expect(page.get_by_text("The vote counts for the experiment chat.")).to_be_visible()
    for name in VARIANTS:
        await expect(column(page, name)).to_be_visible()

    def gained(now: dict[str, VariantReport]) -> set[float] | None:
        """What each variant's latest vote was, once both have one more than before."""
        found = set()
        for name in ("stable", "trial"):
            old, new = (
                ({m.metric: m for m in r[name].metrics}.get("preferred") if name in r else None) for r in (before, now)
            )
            if new is None or new.samples != (old.samples if old else 0) + 1:
                return None
            found.add(round(new.value * new.samples - (old.value * old.samples if old else 0), 6))
        return found

    async with asyncio.timeout(60):
        while (latest := gained(await votes(server))) is None:  # noqa: ASYNC110 - it is in another process
            await asyncio.sleep(0.1)
    assert latest == parts


async def test_a_vote_on_models_of_no_experiment_is_kept_nowhere(opens: Opens, peer: Peer) -> None:
    page = await comparing(opens, "team/plain", "team/terse")
    await compare(page, "Which?", blind=True)
    await page.get_by_role("button", name="None is good").click()
    await expect(page.get_by_text("kept nowhere")).to_be_visible()


async def test_one_that_fails_leaves_the_others_and_there_is_no_vote(
    opens: Opens, peer: Peer, watched: Watched
) -> None:
    page = await comparing(opens, "team/absent", "team/plain")
    await compare(page, "Anybody?", blind=True)
    await page.get_by_role("button", name="Show the names", exact=True).click()
    await expect(column(page, "team/absent").get_by_role("alert")).to_contain_text("cannot connect")
    await expect(page.get_by_role("article")).to_have_count(2)


async def test_stop_closes_the_sockets_at_the_peer(opens: Opens, peer: Peer, watched: Watched) -> None:
    watched.allow("StreamGenerate: net::ERR_ABORTED")
    for model in ("team/plain", "team/terse"):
        peer.plays[model] = speaking(["On and on"], ends=False)
    page = await opens("/?model=chat#/compare")
    await compare(page, "Never stop")
    for name in VARIANTS:
        await expect(column(page, name).get_by_text("On and on")).to_be_visible()
    sockets = [asked.connection for asked in peer.asked]
    assert len(sockets) == 2
    assert not any(socket.gone.is_set() for socket in sockets)
    await page.get_by_role("button", name="Stop all").click()
    await until(lambda: all(socket.gone.is_set() for socket in sockets), "both sockets were closed")
    for name in VARIANTS:
        await expect(column(page, name).get_by_text("Stopped.")).to_be_visible()


async def test_leaving_the_page_stops_what_it_asked(opens: Opens, peer: Peer, watched: Watched) -> None:
    watched.allow("StreamGenerate: net::ERR_ABORTED")
    for model in ("team/plain", "team/terse"):
        peer.plays[model] = speaking(["On and on"], ends=False)
    page = await opens("/?model=chat#/compare")
    await compare(page, "Never stop")
    await expect(column(page, VARIANTS[1]).get_by_text("On and on")).to_be_visible()
    await page.get_by_role("link", name="Chat").click()
    await until(
        lambda: len(peer.asked) == 2 and all(a.connection.gone.is_set() for a in peer.asked), "they were closed"
    )
