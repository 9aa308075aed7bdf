"""The console keeps to what its content security policy allows."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from polyroute.server.rest.console import PAGES

TEXTS = {name: (files("polyroute.server") / "console" / name).read_text() for name, _ in PAGES.values()}


def test_nothing_is_inline() -> None:
    page = TEXTS["index.html"]
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", page)
    assert not re.search(r"<script(?![^>]*\ssrc=)", page)


def test_text_from_outside_never_becomes_markup() -> None:
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", TEXTS["console.js"]
    )


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_nothing_comes_from_elsewhere(name: str) -> None:
    assert not re.search(r"https?://|//cdn", TEXTS[name])


def test_every_element_that_the_script_uses_is_there() -> None:
    used = set(re.findall(r'\$\("([\w-]+)"\)', TEXTS["console.js"]))
    there = set(re.findall(r'\sid="([\w-]+)"', TEXTS["index.html"]))
    assert used <= there


def test_every_control_has_a_label() -> None:
    page = TEXTS["index.html"]
    for control in re.finditer(r"<(input|select|textarea)\b", page):
        before = page[: control.start()]
        assert before.rfind("<label") > before.rfind("</label>"), control.group()


def test_it_is_dark_and_light_and_fits_a_phone() -> None:
    assert "prefers-color-scheme: dark" in TEXTS["console.css"]
    assert 'name="viewport"' in TEXTS["index.html"]
