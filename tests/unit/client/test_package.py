"""The package's names, and what importing it and starting the command line does not import."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import polyroute.client as package

FORBIDDEN = (
    "torch",
    "transformers",
    "aiohttp",
    "pydantic",
    "yaml",
    "polyroute.core",
    "polyroute.routing",
    "polyroute.backends",
    "polyroute.server",
    "polyroute.store",
)


def imported_by(code: str) -> set[str]:
    """Modules in memory after `code` has run in a fresh interpreter."""
    script = f"{code}\nimport sys\nprint('\\n'.join(['<<<', *sys.modules]))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    return set(done.stdout.split("<<<\n")[1].split())


def test_the_whole_client_needs_nothing_of_the_server() -> None:
    modules = imported_by(
        "from polyroute.client import *\n"
        "from polyroute.client.cli import admin, chat, commands, explain, generate, models, printing, running"
    )
    assert "polyroute.client.client" in modules
    assert "grpc" in modules
    loaded = {name for name in modules for root in FORBIDDEN if name == root or name.startswith(f"{root}.")}
    assert loaded == set()


def test_listing_the_commands_imports_neither_grpc_nor_the_server() -> None:
    modules = imported_by(
        "import sys; sys.argv = ['polyroute', '--help']\n"
        "from polyroute.client.cli import main\n"
        "try: main()\nexcept SystemExit as left: assert left.code == 0"
    )
    assert not {name for name in modules if name.split(".")[0] in ("grpc", "google", "rich", "asyncio", "aiohttp")}
    assert "polyroute.server" not in modules


def test_every_public_name_is_there_and_documented() -> None:
    assert sorted(package.__all__) == list(package.__all__)
    assert set(package.__all__) == set(package._HOME)
    assert set(package.__all__) <= set(dir(package))
    for name in package.__all__:
        value = getattr(package, name)
        assert value.__doc__, name
        assert value.__module__ == f"polyroute.client.{package._HOME[name]}", name


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(package.__file__ or "").read_text())
    (guarded,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        (str(node.module).rsplit(".", 1)[1], alias.name)
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == {(home, name) for name, home in package._HOME.items()}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        package.nothing  # noqa: B018
