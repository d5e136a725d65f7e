"""Alembic's entry point: runs migrations on the connection from `catalog.database.schema`."""

from alembic import context

from imgflow.catalog.database.schema import VERSION_TABLE
from imgflow.catalog.database.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    # A migration that adds a column locks readers out until it commits, not until all have run.
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
