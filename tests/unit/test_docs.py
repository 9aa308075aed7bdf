"""The docs say what the code does: names, tables and paths in them are held against it."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from polyroute.core import errors

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
STRUCTURE = ROOT / "docs" / "structure.md"


def rows(root: type[errors.PolyrouteError]) -> list[type[errors.PolyrouteError]]:
    return [root, *(cls for sub in root.__subclasses__() for cls in rows(sub))]


def error_table() -> str:
    lines = ["| reason | gRPC | HTTP | next attempt | when |", "|---|---|---|---|---|"]
    abstract = {errors.PolyrouteError}
    for cls in rows(errors.PolyrouteError):
        if cls in abstract:
            continue
        when = (cls.__doc__ or "").split(". ")[0].split("\n")[0].rstrip(".")
        tried = "yes" if cls.try_next else "no"
        lines.append(f"| `{cls.reason}` | `{cls.grpc}` | {cls.http} | {tried} | {when} |")
    return "\n".join(lines)


def test_the_error_table_is_that_of_the_code() -> None:
    assert error_table() in (ROOT / "docs" / "errors.md").read_text(), "docs/errors.md must hold:\n" + error_table()


def test_the_path_of_a_request_names_real_functions() -> None:
    """Each numbered step names at least one `package.module.function`; all of them exist."""
    steps = re.findall(r"^\d+\. (.*(?:\n   .*)*)", STRUCTURE.read_text(), flags=re.MULTILINE)
    assert 8 <= len(steps) <= 10
    for step in steps:
        names = re.findall(r"`((?:server|routing|backends|core|client)\.[\w.]+)`", step)
        assert names, f"no name in: {step}"
        for name in names:
            assert exists(f"polyroute.{name}"), name


def exists(name: str) -> bool:
    parts = name.split(".")
    for cut in range(len(parts), 1, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


def test_a_name_that_is_gone_is_noticed() -> None:
    assert exists("polyroute.core.errors.clip")
    assert not exists("polyroute.core.errors.gone")
    assert not exists("polyroute.core.gone")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), target
