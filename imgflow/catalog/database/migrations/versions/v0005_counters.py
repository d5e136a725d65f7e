"""The table `counters`, and indexes that answer a scrape without reading the rows of `images`."""

from alembic import op
from sqlalchemy import text

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

STATEMENTS = (
    # A few dozen rows that are updated all the time: free space in their pages keeps updates local.
    """
    CREATE TABLE counters (
        source text NOT NULL,
        name text NOT NULL,
        labels jsonb NOT NULL,
        value double precision NOT NULL,
        PRIMARY KEY (source, name, labels)
    ) WITH (fillfactor = 50)
    """,
    "CREATE INDEX images_counts ON images (source, kind, state, reason_code)",
    "CREATE INDEX images_pending_since ON images (source, updated_at) WHERE state = 'pending'",
    # Only on vacuumed pages does an index alone show which rows exist. By default, a fifth of all
    # rows may change before a vacuum.
    "ALTER TABLE images SET (autovacuum_vacuum_scale_factor = 0.05, "
    "autovacuum_vacuum_insert_scale_factor = 0.05)",
)


def upgrade() -> None:
    """Create a table and two indexes, and vacuum more often."""
    for statement in STATEMENTS:
        op.execute(text(statement))
