"""A file is read again when its content has changed and come to rest, however it came there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from polyroute.core.config_file import ConfigError
from polyroute.server.config_source import ConfigSource
from polyroute.server.config_watch import ConfigWatch

GOOD = "models:\n  - {id: m, type: local}\n"


class Watched:
    """A file that has been read once, and is read again when the watch says so."""

    def __init__(self, path: Path) -> None:
        self.source = ConfigSource(path)
        self.source.read({})
        self.reads: list[str] = []
        self._watch = ConfigWatch(self.source, self._reload)

    async def _reload(self) -> None:
        try:
            self.reads.append(str(len(self.source.read({}).models)))
        except ConfigError as error:
            self.reads.append(error.problems[0].message)

    async def looks(self, times: int = 2) -> list[str]:
        """What was read in so many looks."""
        self.reads.clear()
        for _ in range(times):
            await self._watch.look()
        return [*self.reads]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "models.yaml"
    path.write_text(GOOD)
    return path


@pytest.fixture
def watched(path: Path) -> Watched:
    return Watched(path)


async def test_what_has_not_changed_is_not_read(watched: Watched, path: Path) -> None:
    assert await watched.looks(3) == []
    path.write_text(GOOD)  # written again, the same
    os.utime(path, (1, 1))
    assert await watched.looks(3) == []


async def test_a_change_is_read_once_when_two_looks_find_the_same(watched: Watched, path: Path) -> None:
    path.write_text(GOOD + "  - {id: n, type: local}\n")
    assert await watched.looks(1) == []
    assert await watched.looks(1) == ["2"]
    assert await watched.looks(3) == []


async def test_a_file_that_is_being_written_is_left_alone(watched: Watched, path: Path) -> None:
    for part in ("models:\n  - {id: m", ", type: remote, base_url: ", "'http://x:1'}\n"):
        with path.open("a") as file:
            file.write(part)
        assert await watched.looks(1) == []
    path.write_text(GOOD + "  - {id: n, type: local}\n")
    assert await watched.looks(2) == ["2"]


async def test_a_broken_file_is_told_of_once(watched: Watched, path: Path) -> None:
    path.write_text("colour: red\n" + GOOD)
    assert await watched.looks(5) == ["unknown key"]
    path.write_bytes(b"\xff")
    assert await watched.looks(5) == ["cannot be read: the file is not UTF-8"]
    path.write_text(GOOD)
    assert await watched.looks(5) == ["1"]


async def test_renamed_into_place(watched: Watched, path: Path) -> None:
    other = path.with_name("new")
    other.write_text(GOOD + "  - {id: n, type: local}\n")
    other.replace(path)
    assert await watched.looks(2) == ["2"]


async def test_a_link_that_is_turned_to_another_folder(tmp_path: Path) -> None:
    """As Kubernetes does with a ConfigMap: the file is a link into `..data`, itself a link to a folder."""
    for name, text in (("v1", GOOD), ("v2", GOOD + "  - {id: n, type: local}\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "models.yaml").write_text(text)
    (tmp_path / "..data").symlink_to("v1")
    (tmp_path / "models.yaml").symlink_to("..data/models.yaml")
    watched = Watched(tmp_path / "models.yaml")
    (tmp_path / "..data_tmp").symlink_to("v2")
    (tmp_path / "..data_tmp").replace(tmp_path / "..data")
    assert await watched.looks(2) == ["2"]


async def test_a_file_that_is_missing_is_waited_for(watched: Watched, path: Path) -> None:
    path.unlink()
    with capture_logs() as logs:
        assert await watched.looks(3) == []
    assert [entry["event"] for entry in logs] == ["config.missing"]
    path.write_text(GOOD)
    assert await watched.looks(3) == []
    path.unlink()
    await watched.looks(1)
    path.write_text(GOOD + "  - {id: n, type: local}\n")
    assert await watched.looks(2) == ["2"]


async def test_what_another_trigger_has_read_is_not_read_again(watched: Watched, path: Path) -> None:
    path.write_text(GOOD + "  - {id: n, type: local}\n")
    watched.source.read({})
    assert await watched.looks(3) == []


async def test_what_was_only_checked_is_read(watched: Watched, path: Path) -> None:
    path.write_text(GOOD + "  - {id: n, type: local}\n")
    assert len(watched.source.check({}).models) == 2
    assert await watched.looks(2) == ["2"]
    path.write_text("colour: red\n" + GOOD)
    with pytest.raises(ConfigError):
        watched.source.check({})
    assert await watched.looks(2) == ["unknown key"]


async def test_line_ends_of_another_system(path: Path) -> None:
    path.write_bytes(GOOD.replace("\n", "\r\n").encode())
    watched = Watched(path)
    assert await watched.looks(3) == []
