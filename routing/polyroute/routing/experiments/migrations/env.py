"""How Alembic runs the steps: over the connection that it is given, in that one's transaction."""

from __future__ import annotations

from alembic import context

from polyroute.routing.experiments.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table="schema_version",
    transactional_ddl=False,  # the caller's transaction holds everything
)
context.run_migrations()
