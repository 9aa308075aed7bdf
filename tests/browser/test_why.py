"""Whoever wonders why an answer came as it did is told, step by step."""

from __future__ import annotations

import re

from playwright.async_api import expect

from polyroute.core.event import Attempt, Route
from polyroute.core.route_header import ROUTE_HEADER, route_to_header
from tests.browser.asking import ask, steps, way_of
from tests.browser.conftest import Opens
from tests.browser.peer import Peer
from tests.browser.watching import Watched
from tests.integration.peers import END, answering, said, streaming


async def test_a_variant_is_told_with_its_share_and_hash_point(opens: Opens, peer: Peer) -> None:
    page = await opens("/?model=chat")
    answer = await ask(page, "Which one are you?")
    way = await way_of(answer)
    assert "`chat` is a route with 2 variants".replace("`", "") in way["Route"]
    share = re.match(r"(stable|trial), which had 50% of the traffic", way["Variant"])
    assert share, way
    assert re.search(rf"keyed on request: 0\.\d{{3}} falls to {share[1]} \(share 0\.5\)", way["Variant"])
    await expect(answer.get_by_role("img", name="Hash point 0.")).to_be_visible()
    assert {"stable": "team/plain, version v1", "trial": "team/terse, version v2"}[share[1]] in way["Answered by"]
    assert "without a temperature the peer may sample" in way["Cache"], "why the cache was not asked"
    assert re.match(r"waited [\d.]+ ms for a permit", way["Queue"])
    assert re.match(r"after [\d.]+ m?s", way["First token"])
    assert "tokens read" in way["End"]
    assert re.search(r"\b[0-9a-f]{32}\b", way["Trace"])
    assert re.search(r"\b[0-9a-f]{32}\b", way["Request"])


async def test_an_attempt_that_failed_is_told_with_its_error_before_the_one_that_answered(
    opens: Opens, peer: Peer
) -> None:
    peer.plays["team/brittle"] = answering(b"out of order", kind="text/plain", status="503 Service Unavailable")
    answer = await ask(await opens("/?model=safe"), "Hello?")
    await expect(answer.get_by_text("1 failed attempt")).to_be_visible()
    way = await way_of(answer)
    assert re.match(r"team/brittle at http://\S+ failed after [\d.]+ m?s: UNAVAILABLE\n", way["Attempt 1"]), way
    assert "out of order" in way["Attempt 1"]
    assert re.match(r"team/plain at http://\S+ began to answer after [\d.]+ m?s", way["Attempt 2"])


async def test_a_stored_answer_says_how_old_it_is(opens: Opens, peer: Peer) -> None:
    page = await opens("/?model=team/cached")
    assert "not found, so the model ran" in (await way_of(await ask(page, "The same twice")))["Cache"]
    again = await opens("/?model=team/cached")
    answer = await ask(again, "The same twice")
    await expect(answer.get_by_text("cache hit").first).to_be_visible()
    assert re.match(r"answered from the cache, \d+ (s|min) old", (await way_of(answer))["Cache"])
    assert len(peer.asked) == 1


async def test_a_failure_is_told_where_there_is_no_route(opens: Opens, peer: Peer, watched: Watched) -> None:
    watched.allow("503")
    way = await way_of(await ask(await opens("/?model=team/absent"), "Anybody?"))
    assert re.match(r"PEER_UNREACHABLE: team/absent at \S+: cannot connect", way["Failed"])
    assert re.search(r"\b[0-9a-f]{32}\b", way["Request"])


async def test_what_would_happen_is_told_before_anything_is_sent(opens: Opens, peer: Peer) -> None:
    page = await opens("/?model=safe")
    await page.get_by_role("button", name="Parameters", exact=True).click()
    await page.get_by_text("What would happen").click()
    way = await steps(page.get_by_role("list", name="The way that this request would go"))
    assert "falls back to team/plain" in way["Route"]
    assert way["First"].startswith("team/brittle, version v1")
    assert "the peer may sample" in way["First"]
    assert way["Fallback"].startswith("team/plain, version v1, now warm")
    await page.get_by_label("Temperature").fill("0")
    await expect(page.get_by_text("temperature 0 is deterministic").first).to_be_visible()
    assert peer.asked == []


async def test_a_peer_that_is_a_router_itself_tells_its_own_way(opens: Opens, peer: Peer) -> None:
    there = Route(
        requested="team/plain",
        model="deep",
        deployment="deep",
        variant="blue",
        attempts=(Attempt("shallow", reason="PEER_TIMEOUT", message="too late"), Attempt("deep")),
        reasons=("`team/plain` is a route over there",),
    )
    peer.plays["team/plain"] = streaming(said("from afar"), END, headers=(f"{ROUTE_HEADER}: {route_to_header(there)}",))
    answer = await ask(await opens("/?model=team/plain"), "Who is behind you?")
    await answer.get_by_text("Why this way").click()
    beyond = answer.get_by_role("list", name="The way at the peer")
    await expect(beyond).to_contain_text("team/plain is a route over there")
    await expect(beyond).to_contain_text("shallow failed after 0 ms: PEER_TIMEOUT")
    await expect(beyond).to_contain_text("blue")
