"""A conversation as a person has it: ask, stop, ask again, edit, and with which parameters."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

from playwright.async_api import Page, expect

from tests.browser.chatting import answers, choose, field, messages, model, say, send
from tests.browser.conftest import Opens
from tests.browser.peer import Peer, speaking
from tests.browser.watching import Watched
from tests.integration.peers import WAIT_S

MARKDOWN = """# Routers

They **pick** a model:

1. by name
2. by [route](https://example.org/route)

| a | b |
|---|---|
| 1 | 2 |

```python
def pick(name):
    return name
```
"""


async def test_an_answer_becomes_readable_as_it_comes(opens: Opens, peer: Peer, watched: Watched) -> None:
    watched.allow("StreamGenerate: net::ERR_ABORTED")
    peer.plays["team/plain"] = speaking([MARKDOWN[at : at + 5] for at in range(0, len(MARKDOWN), 5)], ends=False)
    page = await opens("/?model=team/plain")
    await send(page, "What are routers?")
    answer = answers(page).first
    await expect(answer.get_by_role("heading", name="Routers")).to_be_visible()
    await expect(answer.get_by_role("listitem")).to_have_count(2)
    await expect(answer.get_by_role("cell", name="2")).to_be_visible()
    await expect(answer.locator("pre")).to_contain_text("return name")
    await page.keyboard.press("Escape")
    await answer.get_by_role("button", name="Copy python").click()
    await expect(answer.get_by_role("button", name="Copy python")).to_have_text("Copied")
    assert await page.evaluate("navigator.clipboard.readText()") == "def pick(name):\n    return name"


async def test_stop_is_felt_by_the_peer(opens: Opens, peer: Peer, watched: Watched) -> None:
    watched.allow("StreamGenerate: net::ERR_ABORTED")
    peer.plays["team/plain"] = speaking(["a beginning "], ends=False)
    page = await opens("/?model=team/plain")
    await send(page, "Never end")
    await expect(answers(page).first).to_contain_text("a beginning")
    assert not peer.asked[-1].connection.gone.is_set()
    await page.get_by_role("button", name="Stop").click()
    async with asyncio.timeout(WAIT_S):
        await peer.asked[-1].connection.gone.wait()
    await expect(answers(page).first).to_contain_text("stopped")
    await expect(page.get_by_role("button", name="Send")).to_be_visible()
    peer.plays.clear()
    answer = await say(page, "And now?")  # the conversation goes on
    assert [m["content"] for m in peer.asked[-1].json["messages"]] == ["Never end", "a beginning ", "And now?"]
    await expect(answer).not_to_contain_text("stopped")


async def test_asking_again_and_editing_lose_nothing(opens: Opens, peer: Peer) -> None:
    page = await opens("/?model=team/plain")
    await say(page, "One")
    peer.says("team/plain", "another answer")
    first = answers(page).first
    await first.get_by_role("button", name="Ask again").click()
    await expect(first).to_contain_text("another answer")
    await expect(first).to_contain_text("2 of 2")
    await first.get_by_role("button", name="Version before").click()
    await expect(first).to_contain_text("team/plain was asked: One")
    mine = page.get_by_role("article", name="Your message").first
    await mine.get_by_role("button", name="Edit").click()
    editor = page.get_by_role("textbox", name="Edit your message")
    await expect(editor).to_be_focused()
    await editor.fill("Two")
    await editor.press("Enter")
    await expect(mine).to_contain_text("2 of 2")
    await expect(answers(page)).to_have_count(1)
    await expect(answers(page).first.get_by_role("button", name="Ask again")).to_be_visible()
    assert [m["content"] for m in peer.asked[-1].json["messages"]] == ["Two"]
    await mine.get_by_role("button", name="Version before").click()
    await expect(mine).to_contain_text("One")
    await expect(answers(page).first).to_contain_text("another answer")  # the branch is shown to its newest end
    await expect(answers(page).first).to_contain_text("2 of 2")


async def test_parameters_reach_the_model(opens: Opens, peer: Peer) -> None:
    page = await opens("/?model=team/plain")
    await page.get_by_role("button", name="Parameters", exact=True).click()
    panel = page.get_by_role("complementary", name="Parameters")
    typed = {
        "System prompt": "Be brief.",
        "Max tokens": "77",
        "Temperature": "0.5",
        "Top p": "0.9",
        "Seed": "12345678901234567",
        "Stop strings": "END\n\\n\\n",
    }
    for label, text in typed.items():
        await panel.get_by_label(label).fill(text)
    await panel.get_by_label("Cache").select_option("bypass: neither read nor write")
    await panel.get_by_label("Answer format").select_option("JSON schema")
    await panel.get_by_role("textbox", name="JSON schema").fill('{"type": "object"}')
    await say(page, "Hello")
    asked: dict[str, Any] = peer.asked[-1].json
    assert asked["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (asked["max_tokens"], asked["temperature"], asked["top_p"]) == (77, 0.5, 0.9)
    assert (asked["seed"], asked["stop"]) == (12345678901234567, ["END", "\n\n"])
    assert asked["response_format"]["type"] == "json_schema"
    await page.reload()
    await expect(panel.get_by_label("Max tokens")).to_have_value("77")


async def test_the_models_own_parameters_are_shown(opens: Opens, demo: None) -> None:
    page = await opens("/?model=demo")
    await page.get_by_role("button", name="Parameters", exact=True).click()
    panel = page.get_by_role("complementary", name="Parameters")
    await expect(panel.get_by_label("Temperature")).to_have_attribute("placeholder", "0 (greedy)")
    await expect(panel.get_by_label("Repetition penalty")).to_have_attribute("placeholder", "1")
    await expect(panel.get_by_label("Max tokens")).to_have_attribute("placeholder", "up to the context")
    await choose(page, "team/plain")
    await expect(panel.get_by_label("Temperature")).to_have_attribute("placeholder", "model's own")


async def test_a_wrong_parameter_is_told_before_anything_is_sent(opens: Opens, peer: Peer) -> None:
    page = await opens("/?model=team/plain")
    await page.get_by_role("button", name="Parameters", exact=True).click()
    await page.get_by_label("Top p").fill("1.5")
    await expect(page.get_by_text("1.5; must be at most 1")).to_be_visible()
    await field(page).fill("Hello")
    await expect(page.get_by_role("button", name="Send")).to_be_disabled()
    await page.get_by_role("button", name="Clear").click()
    await expect(page.get_by_role("button", name="Send")).to_be_enabled()
    assert peer.asked == []


async def test_a_failure_says_what_and_why(opens: Opens, watched: Watched) -> None:
    watched.allow("status of 503")
    page = await opens("/?model=team/absent")
    await expect(page.get_by_text("It cannot be reached")).to_be_visible()
    answer = await say(page, "Hello")
    alert = answer.get_by_role("alert")
    await expect(alert).to_contain_text("team/absent")
    await expect(alert).to_contain_text(re.compile("request [0-9a-f]{32}"))


async def test_what_the_server_refuses_names_the_field(opens: Opens, demo: None, watched: Watched) -> None:
    watched.allow("status of 400")
    page = await opens("/?model=demo")
    await page.get_by_role("button", name="Parameters", exact=True).click()
    await page.get_by_label("Answer format").select_option("regular expression")
    await page.get_by_role("textbox", name="regular expression").fill("(unclosed")
    answer = await say(page, "Hello")
    await expect(answer.get_by_role("alert")).to_contain_text("field response_format")


async def test_a_local_model_answers_and_a_cached_answer_says_so(opens: Opens, demo: None) -> None:
    page = await opens("/?model=demo")
    await page.get_by_role("button", name="Parameters", exact=True).click()
    await page.get_by_label("Max tokens").fill("8")
    await say(page, "Count to three.")
    first = answers(page).first
    await expect(first).to_contain_text(re.compile(r"tokens/s.*\d+ \+ 8 tokens.*ended by length limit"))
    await first.get_by_role("button", name="Ask again").click()
    await expect(first).to_contain_text("2 of 2")
    await expect(first).to_contain_text("cache hit")


async def test_the_page_follows_an_answer_only_while_its_end_is_in_view(
    opens: Opens, peer: Peer, watched: Watched
) -> None:
    watched.allow("StreamGenerate: net::ERR_ABORTED")
    goes_on = asyncio.Event()
    lines = [f"line {at}\n\n" for at in range(80)]

    async def play(connection: Any, request: Any) -> None:
        await speaking(lines, stays=True)(connection, request)
        await goes_on.wait()
        await speaking([f"more {at}\n\n" for at in range(40)], begun=True)(connection, request)

    peer.plays["team/plain"] = play
    page = await opens("/?model=team/plain")
    await send(page, "Go on")
    await expect(messages(page).get_by_text("line 79")).to_be_in_viewport()
    await messages(page).evaluate("element => { element.scrollTop = 0 }")
    to_end = page.get_by_role("button", name="To the end")
    await to_end.wait_for()
    goes_on.set()
    await expect(messages(page).get_by_text("more 39")).to_be_attached()
    assert await messages(page).evaluate("element => element.scrollTop") == 0
    await to_end.click()
    await expect(messages(page).get_by_text("more 39")).to_be_in_viewport()


async def test_an_answer_goes_on_while_another_conversation_is_open(opens: Opens, peer: Peer) -> None:
    goes_on = asyncio.Event()

    async def play(connection: Any, request: Any) -> None:
        await speaking(["a beginning, "], stays=True)(connection, request)
        await goes_on.wait()
        await speaking(["and an end"], begun=True)(connection, request)

    peer.plays["team/plain"] = play
    page = await opens("/?model=team/plain")
    await send(page, "Slowly")
    await expect(answers(page).first).to_contain_text("a beginning")
    await page.get_by_role("button", name="New chat").first.click()
    await expect(answers(page)).to_have_count(0)
    goes_on.set()
    await page.get_by_role("button", name="Slowly").first.click()
    await expect(answers(page).first).to_contain_text("a beginning, and an end")
    await expect(answers(page).first.get_by_role("button", name="Ask again")).to_be_visible()


async def test_the_server_goes_and_comes_back(opens: Opens, peer: Peer, watched: Watched) -> None:
    watched.allow("ERR_INTERNET_DISCONNECTED")
    page: Page = await opens("/?model=team/plain")
    await expect(model(page)).to_have_value("team/plain")
    await page.context.set_offline(True)
    await expect(page.get_by_text("The server cannot be reached. What is on this page is kept.")).to_be_visible()
    answer = await say(page, "Are you there?")
    await expect(answer.get_by_role("alert")).to_contain_text("the server cannot be reached")
    await page.context.set_offline(False)
    await expect(page.get_by_text("The server cannot be reached. What")).to_be_hidden()
    await answer.get_by_role("button", name="Ask again").click()
    await expect(answers(page).first).to_contain_text("team/plain was asked: Are you there?")
    assert len(peer.asked) == 1


async def test_routing_options_pin_a_variant(opens: Opens, peer: Peer) -> None:
    page = await opens("/?model=chat")
    await page.get_by_role("button", name="Parameters", exact=True).click()
    await page.get_by_text("Routing").click()
    await page.get_by_label("Variant").select_option("trial: team/terse")
    answer = await say(page, "Who are you?")
    await expect(answer).to_contain_text("team/terse (trial)")
    assert json.loads(peer.asked[-1].body)["model"] == "team/terse"


async def test_the_keyboard_finds_its_way_when_what_it_was_on_is_gone(
    opens: Opens, peer: Peer, watched: Watched
) -> None:
    watched.allow("StreamGenerate: net::ERR_ABORTED")
    page = await opens("/?model=team/plain")
    await say(page, "Hello")
    edit = page.get_by_role("button", name="Edit")
    await edit.press("Enter")
    await page.get_by_label("Edit your message").press("Escape")
    await expect(edit).to_be_focused()
    await page.get_by_role("button", name="Parameters", exact=True).press("Enter")
    await page.get_by_role("button", name="Close the parameters").press("Enter")
    await expect(page.get_by_role("button", name="Parameters", exact=True)).to_be_focused()
    menu = page.get_by_label("More for Hello")
    await menu.press("Enter")
    await page.get_by_role("button", name="Rename").press("Escape")
    await expect(page.get_by_role("button", name="Rename")).to_be_hidden()
    await expect(menu).to_be_focused()
    await menu.press("Enter")
    await page.get_by_role("button", name="Rename").press("Enter")
    await page.get_by_label("Title").press("Escape")
    await expect(menu).to_be_focused()
    peer.plays["team/plain"] = speaking(["On and on"], ends=False)
    await page.get_by_role("button", name="Ask again").press("Enter")
    await expect(field(page)).to_be_focused()
    await page.get_by_role("button", name="Stop").press("Enter")
    await expect(page.get_by_role("button", name="Send")).to_be_visible()
    await expect(field(page)).to_be_focused()
