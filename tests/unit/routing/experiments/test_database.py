"""The state database is made where it is missing, brought up to date, and its failures are said."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from polyroute.core.errors import StateUnavailable
from polyroute.routing.experiments import migrations
from polyroute.routing.experiments.adaptive.store import allocations
from polyroute.routing.experiments.database import Database, checked_url, default_url, shown
from polyroute.routing.experiments.rollout.tables import rollouts
from polyroute.routing.experiments.tables import metadata


def _differences(connection: Connection) -> list[object]:
    assert rollouts.metadata is allocations.metadata is metadata  # whatever module knows a table of its own
    context = MigrationContext.configure(connection, opts={"version_table": "schema_version"})
    return list(compare_metadata(context, metadata))


async def test_the_migrations_make_the_tables_that_the_code_knows(database: Database) -> None:
    assert await database.write(_differences) == []


def test_the_steps_follow_one_another() -> None:
    scripts = ScriptDirectory(str(Path(migrations.__file__).parent))
    steps = list(scripts.walk_revisions())
    assert [step.revision for step in steps] == [f"{n:03}" for n in range(len(steps), 0, -1)]
    files = list(Path(scripts.versions).glob("m*.py"))
    assert len(files) == len(steps), "two steps have one number"


async def test_a_work_that_fails_leaves_nothing_behind(database: Database) -> None:
    def fails(connection: Connection) -> None:
        connection.execute(text("INSERT INTO splits VALUES ('x', '{}')"))
        connection.execute(text("SELECT no_such_column FROM splits"))

    with pytest.raises(StateUnavailable, match="no such column"):
        await database.write(fails)
    assert await database.read(lambda c: c.scalar(text("SELECT count(*) FROM splits"))) == 0


async def test_a_reader_is_not_held_up_by_a_writer(database: Database) -> None:
    begun, end = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def writes(connection: Connection) -> None:
        connection.execute(text("INSERT INTO splits VALUES ('x', '{}')"))
        loop.call_soon_threadsafe(begun.set)
        asyncio.run_coroutine_threadsafe(end.wait(), loop).result()

    writing = asyncio.create_task(database.write(writes))
    await begun.wait()
    assert await database.read(lambda c: c.scalar(text("SELECT count(*) FROM splits"))) == 0
    end.set()
    await writing
    assert await database.read(lambda c: c.scalar(text("SELECT count(*) FROM splits"))) == 1


async def test_two_processes_that_write_wait_for_each_other(tmp_path: Path) -> None:
    both = [Database(default_url(tmp_path)) for _ in range(2)]
    insert = text("INSERT INTO splits VALUES (:name, '{}')")

    async def write(name: int) -> None:
        await both[name % 2].write(lambda c: c.execute(insert, {"name": str(name)}))

    await asyncio.gather(*(write(name) for name in range(40)))
    assert await both[0].read(lambda c: c.scalar(text("SELECT count(*) FROM splits"))) == 40
    for database in both:
        await database.close()


async def test_processes_that_open_a_new_file_at_once_wait_for_each_other(tmp_path: Path) -> None:
    for attempt in range(20):
        each = [Database(default_url(tmp_path / str(attempt))) for _ in range(4)]
        await asyncio.gather(*(database.read(lambda c: None) for database in each))
        for database in each:
            await database.close()


async def test_a_folder_that_cannot_be_made_is_said_and_tried_again(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("in the way")
    database = Database(default_url(tmp_path / "state"))
    with pytest.raises(StateUnavailable, match=r"state\.db: "):
        await database.read(lambda c: None)
    (tmp_path / "state").unlink()
    await database.read(lambda c: None)
    assert database.opened
    await database.close()


async def test_a_database_of_a_later_version_is_left_alone(database: Database, tmp_path: Path) -> None:
    await database.write(lambda c: c.execute(text("UPDATE schema_version SET version_num = '999'")))
    later = Database(database.url)
    with pytest.raises(StateUnavailable, match="another version of Polyroute"):
        await later.read(lambda c: None)
    await later.close()


def test_urls_that_name_no_state_database_are_refused() -> None:
    for url, why in (
        ("nonsense", "is no URL"),
        ("mysql://host/db", "`mysql` is neither"),
        ("sqlite://", "names no file"),
    ):
        with pytest.raises(ValueError, match=why):
            checked_url(url)
    assert checked_url("postgresql://u:secret@host/db") == "postgresql://u:secret@host/db"
    assert "secret" not in shown("postgresql://u:secret@host/db")


@pytest.mark.parametrize(
    "url",
    ["postgresql://u@h/db?password=secret", "postgresql://h/db?sslpassword=secret&user=u", "postgresql://u:p@h:secret"],
)
def test_no_password_is_shown_wherever_it_stands(url: str) -> None:
    assert "secret" not in shown(url)


@pytest.mark.parametrize("url", ["postgresql://u:my@secret@host/db", "postgresql://u:p@host:secret/db"])
def test_a_url_that_would_be_misread_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match=r"two `@`|is no URL") as refused:
        checked_url(url)
    assert "secret" not in str(refused.value)
