"""The list of commands, and what happens where one cannot be had."""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from polyroute.client.cli import commands, polyroute

CONTRACT = ("cache", "chat", "check", "experiment", "explain", "generate", "load", "models", "reload", "rollout")
CONTRACT += ("serve", "unload")


def test_every_command_of_the_contract_is_listed_with_its_help() -> None:
    shown = CliRunner().invoke(polyroute, ["--help"]).output
    for name in CONTRACT:
        (line,) = [line for line in shown.splitlines() if line.split()[:1] == [name]]
        assert len(line.split()) > 2, line


@pytest.mark.parametrize("name", commands.OWN)
def test_our_own_commands_exist_and_are_named_as_they_are_listed(name: str) -> None:
    module, attribute = commands.OWN[name][0].split(":")
    command = getattr(importlib.import_module(module), attribute)
    assert isinstance(command, click.Command)
    assert command.name == name
    assert CliRunner().invoke(polyroute, [name, "--help"]).exit_code == 0


def test_groups_hold_the_commands_of_the_contract() -> None:
    for group, names in {
        "cache": "stats clear",
        "rollout": "status pause resume promote rollback",
        "experiment": "report",
    }.items():
        command = commands.Commands().get_command(click.Context(polyroute), group)
        assert isinstance(command, click.Group)
        assert set(command.commands) == set(names.split())


def test_a_command_without_its_extra_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needs_more.py").write_text("import a_package_that_is_not_installed\n")
    (tmp_path / "needs_later.py").write_text(
        "import click\n\n@click.command()\ndef command() -> None:\n    import a_package_that_is_not_installed\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    points = {name: EntryPoint(name, f"{name}:command", "polyroute.commands") for name in ("needs_more", "needs_later")}
    monkeypatch.setattr(commands, "_points", lambda: points)
    for name in points:
        done = CliRunner().invoke(polyroute, [name])
        assert done.exit_code == 1
        assert f"`polyroute {name}` needs the server: pip install 'polyroute[server,local]'" in done.output
        sys.modules.pop(name, None)
