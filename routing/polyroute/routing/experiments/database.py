"""The state database: SQLite in a file of its own, or Postgres that several routers share."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DataError, IntegrityError, NoSuchModuleError, SQLAlchemyError

from polyroute.core.errors import StateUnavailable

T = TypeVar("T")

_BUSY_S: Final = 10.0
"""How long SQLite waits for another process that writes."""

_AGAIN_S: Final = 0.02
_CONNECT_S: Final = 10
_SILENT_MS: Final = 20_000
"""How long Postgres may leave what was sent to it without an acknowledgement."""

_REFUSALS: Final = (DataError, IntegrityError, OverflowError, UnicodeError)

_MIGRATIONS_LOCK: Final = 0x706F6C79726F7574
"""Number of the lock on Postgres that one router at a time migrates under."""

log = structlog.get_logger(__name__)


class Database:
    """Runs work on the state database, in threads of its own: one that writes, and one that reads beside it.

    It is opened, and brought to the schema of this version, when it is used first. A work is a function of a
    `sqlalchemy.Connection` in a transaction, which is committed when it returns; it runs off the event loop, must touch
    nothing but the connection, and may be run again from its beginning.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._engine: Engine | None = None
        self._opening = threading.Lock()
        self._writer = ThreadPoolExecutor(1, "state-writer")
        self._reader = ThreadPoolExecutor(1, "state-reader")

    def __repr__(self) -> str:
        return f"<Database {shown(self.url)} {'open' if self._engine is not None else 'not open'}>"

    @property
    def opened(self) -> bool:
        """Whether it has been used."""
        return self._engine is not None

    async def write(self, work: Callable[[Connection], T]) -> T:
        """What `work` returns, once it is committed; works follow one another. Raises `StateUnavailable`."""
        return await self._run(self._writer, work, write=True)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """What `work`, which changes nothing, returns. Raises `StateUnavailable`."""
        return await self._run(self._reader, work, write=False)

    async def close(self) -> None:
        """Lets what runs come to its end, and closes every connection. Not to be used afterwards."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._writer.shutdown()
        self._reader.shutdown()
        if self._engine is not None:
            self._engine.dispose()

    async def _run(self, threads: ThreadPoolExecutor, work: Callable[[Connection], T], *, write: bool) -> T:
        return await asyncio.get_running_loop().run_in_executor(threads, self._work, work, write)

    def _work(self, work: Callable[[Connection], T], write: bool) -> T:
        try:
            engine = self._open()
            with engine.execution_options(polyroute_write=write).begin() as connection:
                return work(connection)
        except (SQLAlchemyError, OSError, *_REFUSALS) as error:
            raise StateUnavailable(f"{shown(self.url)}: {_why(error)}") from error

    def _open(self) -> Engine:
        with self._opening:
            if self._engine is None:
                from polyroute.routing.experiments.migrations import upgrade  # and Alembic, which takes 5 MB

                engine = _engine(self.url)
                try:
                    with engine.execution_options(polyroute_write=True).begin() as connection:
                        if connection.dialect.name == "postgresql":
                            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATIONS_LOCK})
                        upgrade(connection)
                except BaseException:
                    engine.dispose()
                    raise
                self._engine = engine
                log.info("state.opened", url=shown(self.url))
            return self._engine


def refused(error: StateUnavailable) -> bool:
    """Whether the database cannot hold what it was given, so that trying again does not help."""
    return isinstance(error.__cause__, _REFUSALS)


def default_url(folder: Path) -> str:
    """The database in a folder of this user's."""
    return f"sqlite:///{folder / 'state.db'}"


def checked_url(url: str) -> str:
    """`url`, if it can name a state database; raises `ValueError` that says what is wrong."""
    _parsed(url)
    return url


def shown(url: str) -> str:
    """`url` as it may stand in a log: without its password, and without its options, which may hold one as well."""
    try:
        return make_url(url).set(query={}).render_as_string(hide_password=True)
    except (ArgumentError, ValueError):
        return "state database"


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # the latter where a port is no number
        raise ValueError("is no URL; write sqlite:///PATH or postgresql://USER@HOST/NAME") from None
    kind = parsed.get_backend_name()
    if parsed.host is not None and "@" in parsed.host:
        raise ValueError("has two `@`; one that belongs to a password is written %40")
    if kind in ("postgres", "postgresql"):
        return parsed.set(drivername="postgresql+psycopg")
    if kind != "sqlite":
        raise ValueError(f"`{kind}` is neither sqlite nor postgresql")
    if not parsed.database or parsed.database == ":memory:":
        raise ValueError("names no file; write sqlite:///PATH")
    return parsed.set(drivername="sqlite+pysqlite")


def _engine(url: str) -> Engine:
    parsed = _parsed(url)
    if parsed.get_backend_name() == "sqlite":
        file = Path(parsed.database or "").expanduser()
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        engine = create_engine(parsed.set(database=str(file)), connect_args={"timeout": _BUSY_S})
        event.listen(engine, "connect", _sqlite_connected)
        event.listen(engine, "begin", _sqlite_begins)
        return engine
    try:
        timeouts = {"connect_timeout": _CONNECT_S, "tcp_user_timeout": _SILENT_MS}
        return create_engine(
            parsed.update_query_dict({k: str(v) for k, v in timeouts.items() if k not in parsed.query}),
            pool_size=2,
            max_overflow=1,
            pool_pre_ping=True,
        )
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        raise StateUnavailable("Postgres needs its driver: pip install 'polyroute[postgres]'") from error


def _sqlite_connected(connection: Any, _record: object) -> None:
    """A writer holds up no reader, and each transaction is begun by `_sqlite_begins` alone."""
    connection.isolation_level = None
    cursor = connection.cursor()
    _write_ahead(cursor)
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.close()


def _write_ahead(cursor: sqlite3.Cursor) -> None:
    """Where two open a new file at once, SQLite waits for neither to change its journal; so this does."""
    until = time.monotonic() + _BUSY_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() >= until:
                raise
        time.sleep(_AGAIN_S)


def _sqlite_begins(connection: Connection) -> None:
    """Who will write takes its place before it reads, and so waits for its turn rather than failing half way."""
    write = connection.get_execution_options().get("polyroute_write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _why(error: BaseException) -> str:
    origin = getattr(error, "orig", None) or error
    return " ".join(str(origin).split()) or type(origin).__name__
