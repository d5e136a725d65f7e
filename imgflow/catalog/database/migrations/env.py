"""What Alembic runs: migrations on the connection that `catalog.database.schema` hands over."""

from alembic import context

from imgflow.catalog.database.schema import VERSION_TABLE
from imgflow.catalog.database.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    # One that adds a column locks readers out until its end, which is not to be the end of all.
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
