"""The console keeps to what its content security policy allows, and is served small."""

from __future__ import annotations

import gzip
import hashlib
import re
from importlib.resources import files
from itertools import combinations, pairwise
from pathlib import PurePosixPath

import pytest

from polyroute.server.rest.console import INDEX, SECURITY, accepts_gzip, console_files

FILES = console_files()
OURS = {path: file.body.decode() for path, file in FILES.items() if not path.startswith("vendor/")}
SCRIPTS = {path: text for path, text in OURS.items() if path.endswith(".js")}
VENDOR = (files("polyroute.server") / "console" / "vendor" / "README.md").read_text()
MOST_BYTES = 300_000
MOST_LINES = 250


def test_the_whole_console_is_small() -> None:
    assert sum(len(file.gzipped) for file in FILES.values()) < MOST_BYTES


def test_what_is_compressed_is_the_same() -> None:
    assert all(gzip.decompress(file.gzipped) == file.body for file in FILES.values())
    assert len({file.etag for file in FILES.values()}) == len({file.body for file in FILES.values()})


def test_nothing_is_inline() -> None:
    page = OURS[INDEX]
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", page)
    assert not re.search(r"<script(?![^>]*\ssrc=)", page)


@pytest.mark.parametrize("path", sorted(SCRIPTS))
def test_text_from_outside_never_becomes_markup(path: str) -> None:
    """What does, goes through DOMPurify, which alone may make trusted types."""
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|dangerously|\sstyle="
    assert not re.search(forbidden, SCRIPTS[path])
    assert "trusted-types dompurify" in SECURITY["Content-Security-Policy"]


@pytest.mark.parametrize("path", sorted(OURS))
def test_nothing_comes_from_elsewhere(path: str) -> None:
    without_comments = re.sub(r"^\s*(//|\*|/\*).*$", "", OURS[path], flags=re.MULTILINE)
    loaded = re.findall(
        r"""(?:src|href|import|from|fetch|url)\s*[=(]?\s*["'(](?:https?:)?//[^"')]*""", without_comments
    )
    assert loaded == []


@pytest.mark.parametrize("path", sorted(SCRIPTS))
def test_every_module_that_is_imported_is_there(path: str) -> None:
    """So that a page that is loaded later cannot miss one."""
    for name in re.findall(r"""(?:from|import)\s*\(?\s*"(\.[^"]+)\"""", SCRIPTS[path]):
        target = _normal(PurePosixPath(path).parent / name)
        assert target in FILES, name


def _normal(path: PurePosixPath) -> str:
    parts: list[str] = []
    for part in path.parts:
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)


def classes_styled(path: str) -> set[str]:
    """The classes that a stylesheet styles wherever they stand: those that its selectors begin with."""
    text = re.sub(r"/\*.*?\*/", "", OURS[path], flags=re.DOTALL)
    selectors = [one for rule in re.findall(r"([^{};]+)\{", text) for one in re.split(r",(?![^(]*\))", rule)]
    begins = [re.match(r"\s*[a-z]*(\.[\w-]+)+", one) for one in selectors]
    return {name for found in begins if found for name in re.findall(r"\.([\w-]+)", found.group())}


def test_no_class_means_two_things() -> None:
    """All stylesheets are one namespace: each class is styled by one of them, and a page has none of another page."""
    styled = {path.removeprefix("styles/"): classes_styled(path) for path in OURS if path.startswith("styles/")}
    assert {"chat", "menu"} <= styled["chat.css"]
    tones = {"good", "busy", "bad", "new", "quiet", "primary", "danger", "small", "icon", "card", "chosen", "user"}
    for one, other in combinations(sorted(styled), 2):
        assert styled[one] & styled[other] <= tones, (one, other)
    pages = ("chat", "compare", "operate")
    for page in pages:
        theirs = (
            set().union(*(styled[f"{other}.css"] for other in pages if other != page)) - styled[f"{page}.css"] - tones
        )
        for path in (path for path in SCRIPTS if path.startswith(f"{page}/")):
            used = {
                name
                for text in re.findall(r'class=(?:"|\$\{`)([^"`]*)', SCRIPTS[path])
                for name in re.findall(r"[\w-]+", text)
            }
            assert not used & theirs, path


@pytest.mark.parametrize("path", sorted(SCRIPTS))
def test_modules_are_small_and_say_what_they_are(path: str) -> None:
    lines = SCRIPTS[path].splitlines()
    assert len(lines) <= MOST_LINES
    assert re.match(r"// [A-Z].*\.", " ".join(lines[:3])), lines[:3]


@pytest.mark.parametrize("path", sorted(SCRIPTS))
def test_what_modules_export_is_described(path: str) -> None:
    for before, line in pairwise(SCRIPTS[path].splitlines()):
        if re.match(r"export (async )?(function|class|const)", line):
            assert before.endswith("*/"), line


def test_everything_that_the_page_links_is_there() -> None:
    linked = re.findall(r'(?:src|href)="console/([^"]+)"', OURS[INDEX])
    assert {"app.js", "styles/base.css"} <= set(linked)
    assert set(linked) <= set(FILES)
    assert {path for path in OURS if path.endswith(".css")} <= set(linked)


def test_it_is_dark_and_light_and_fits_a_phone() -> None:
    assert "prefers-color-scheme: dark" in OURS["styles/base.css"]
    assert "prefers-reduced-motion" in OURS["styles/base.css"]
    assert 'name="viewport"' in OURS[INDEX]


def test_dark_is_the_same_whether_chosen_or_the_systems() -> None:
    css = OURS["styles/base.css"]
    by_system, chosen = (
        re.findall(r"--[\w-]+: [^;]+;", re.split(re.escape(start), css, maxsplit=1)[1].split("}")[0])
        for start in (':root:not([data-theme="light"]) {', ':root[data-theme="dark"] {')
    )
    assert by_system == chosen


def test_what_others_wrote_is_as_the_page_of_it_says() -> None:
    """Package, version, file, digest and licence of everything in `vendor/`."""
    told = dict(re.findall(r"\| `([\w./]+)`[^|]*\| `([0-9a-f]{64})` \|", VENDOR))
    there = {path.removeprefix("vendor/"): file for path, file in FILES.items() if path.startswith("vendor/")}
    licences = {PurePosixPath(path).parent for path in there if "LICENSE" in path}
    code = {path: file for path, file in there.items() if "LICENSE" not in path}
    assert told == {path: hashlib.sha256(file.body).hexdigest() for path, file in code.items()}
    assert licences == {PurePosixPath(path).parent for path in code}


@pytest.mark.parametrize(
    ("asked", "takes"),
    [
        ("", False),
        ("gzip", True),
        ("br, gzip;q=0.8", True),
        ("deflate, GZIP", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000, br", False),
        ("*", True),
        ("*, gzip;q=0", False),
        ("identity", False),
    ],
)
def test_gzip_is_sent_to_those_who_take_it(asked: str, takes: bool) -> None:
    assert accepts_gzip(asked) is takes
