"""Brings the state database to the schema of this version, step by step, with Alembic."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection

from polyroute.core.errors import StateUnavailable


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Runs the steps that the database lacks, in the transaction that `connection` is in.

    Raises `StateUnavailable` where a later version of Polyroute has gone further already.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, revision)
    except CommandError as error:
        raise StateUnavailable(f"the state database was made by another version of Polyroute: {error}") from error
