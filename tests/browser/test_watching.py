"""What goes wrong in a page behind a person's back does not escape the tests."""

from __future__ import annotations

from tests.browser.conftest import Opens
from tests.browser.watching import Watched


async def test_what_goes_wrong_in_a_page_is_seen(opens: Opens, watched: Watched) -> None:
    page = await opens()
    await page.evaluate("fetch('/nowhere').then(() => console.error('said so'))")
    await page.evaluate("document.head.append(Object.assign(document.createElement('style'), {textContent: 'p {}'}))")
    await page.evaluate("setTimeout(() => { throw new Error('thrown') })")
    await page.evaluate("fetch('/healthz', {signal: AbortSignal.abort()}).catch(() => 0)")
    await page.wait_for_timeout(0)
    for sign in ("404", "said so", "content security policy: style-src", "uncaught: thrown"):
        assert any(sign in problem for problem in watched.problems), (sign, watched.problems)
    watched.allow("")
    assert watched.problems == []
