"""What "Copy as" gives runs as it is, in a shell and in Python, and gets the answer that the page shows."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from typing import Final

import pytest
from playwright.async_api import Page, expect

from tests.browser.asking import ask
from tests.browser.conftest import Opens
from tests.browser.peer import Peer
from tests.e2e.running import Done, Running, run

NASTY: Final = """it's "quoted", $HOME `pwd` $(pwd) !! \\ %s 100%
second line\twith a tab, and 'more' ünï 漢字 😀 \u202eRTL\u202c zero\u200bwidth \u2028 \x7f end"""
FORMS: Final = ("grpcurl", "curl", "Python", "OpenAI SDK")


async def copied(page: Page, form: str) -> str:
    """The text that lies in the clipboard once somebody has copied the last answer's request in this form."""
    answer = page.locator(".answer").last
    await answer.get_by_role("button", name=form, exact=True).click()
    await answer.get_by_role("button", name="Copy", exact=True).click()
    await expect(answer.get_by_text("Copied")).to_be_visible()
    text: str = await page.evaluate("navigator.clipboard.readText()")
    return text


async def ran(form: str, text: str) -> str:
    """The answer's text that a copied form gets, run as it is."""
    program = ["bash", "-c", text] if form in ("grpcurl", "curl") else [sys.executable, "-c", text]
    done: Done = await asyncio.to_thread(run, program)
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    if form in ("grpcurl", "curl"):
        return str(json.loads(done.stdout)["text"])
    return done.stdout.removesuffix("\n")


@pytest.mark.parametrize("form", FORMS)
async def test_whatever_is_asked_arrives_as_it_was_asked(opens: Opens, peer: Peer, form: str) -> None:
    page = await opens("/?model=team/plain")
    answer = await ask(page, NASTY)
    await answer.get_by_text("Copy as").click()
    text = await copied(page, form)
    assert not set(text) & set("\t\x7f\u202e\u202c\u200b\u2028"), "nothing that a terminal acts upon or nobody sees"
    assert await ran(form, text) == f"team/plain was asked: {NASTY} "
    first, second = (request.json["messages"] for request in peer.asked)
    assert first == second


async def test_the_demo_model_gives_every_form_the_answer_that_the_page_shows(
    opens: Opens, demo: None, server: Running
) -> None:
    page = await opens("/?model=demo")
    await set_parameters(page)
    answer = await ask(page, "What is the capital of France? Don't say \"I'm sure\".")
    shown = await answer.locator(".rendered").inner_text()
    await answer.get_by_text("Copy as").click()
    answers = [await ran(form, await copied(page, form)) for form in FORMS]
    assert len(set(answers)) == 1
    assert answers[0].split() == shown.split()


async def set_parameters(page: Page) -> None:
    """Greedy, short, and past the cache, so that every form has the model answer anew."""
    await page.get_by_role("button", name="Parameters", exact=True).click()
    await page.get_by_label("Temperature").fill("0")
    await page.get_by_label("Max tokens").fill("12")
    await page.get_by_role("combobox", name=re.compile("^Cache")).select_option("CACHE_MODE_BYPASS")


async def test_every_field_of_a_request_has_its_place_in_every_form(opens: Opens, peer: Peer) -> None:
    """What no page of the console sends, but conversations that were imported may hold."""
    request = {
        "model": "chat",
        "messages": {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Which tool?"},
                {"role": "assistant", "toolCalls": [{"id": "c1", "name": "clock", "arguments": "{}"}]},
                {"role": "tool", "content": "12:00", "toolCallId": "c1"},
            ]
        },
        "maxTokens": 9,
        "temperature": 0.5,
        "topP": 0.9,
        "topK": 3,
        "minP": 0.1,
        "repetitionPenalty": 1.1,
        "presencePenalty": -0.5,
        "frequencyPenalty": 0.25,
        "seed": "9007199254740993",
        "stop": ["\n\n", "'"],
        "responseFormat": {"jsonSchema": '{"type": "object", "properties": {"it\'s": {"const": true}}}'},
        "tools": [{"name": "clock", "description": "The time", "parameters": {"type": "object"}}],
        "toolChoice": "clock",
        "extra": {"verbosity": "low"},
        "routing": {"user": "ü", "affinityKey": "k", "variant": "trial", "noFallback": True, "session": "s 1"},
        "cache": {"mode": "CACHE_MODE_REFRESH", "maxAge": "60s"},
        "labels": {"team": "a'b"},
    }
    page = await opens()
    texts: dict[str, str] = await page.evaluate(
        """async ([request, grpcPort]) => {
            const [{ grpcurl, curl }, { python }, { openai }] = await Promise.all(
              ["shell", "python", "openai"].map((name) => import(`/console/copy/${name}.js`)),
            );
            const server = { grpc: `127.0.0.1:${grpcPort}`, url: document.baseURI, model: "" };
            const forms = { grpcurl, curl, Python: python, "OpenAI SDK": openai };
            return Object.fromEntries(Object.entries(forms).map(([name, write]) => [name, write(request, server)]));
        }""",
        [request, await page.evaluate("fetch('/console/session').then((r) => r.json()).then((s) => s.grpc_port)")],
    )
    for form in FORMS:
        await ran(form, texts[form])
    bodies = [asked.json for asked in peer.asked]
    assert len(bodies) == len(FORMS)
    assert bodies[0]["model"] == "team/terse", "pinned"
    for body in bodies:
        assert body == {**bodies[0], "stream": body.get("stream"), "stream_options": body.get("stream_options")}
    assert bodies[0]["seed"] == 9007199254740993
