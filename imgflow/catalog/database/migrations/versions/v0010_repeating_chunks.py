"""Chunks of depth arrays whose pixels repeat are compressed; the others are stored as they are."""

from alembic import op
from sqlalchemy import text

from imgflow.catalog.database.migrations.versions.v0007_depth_rows import STATEMENT

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

STATEMENTS = (
    # PostgreSQL compresses this column automatically, its default storage. It would try for every
    # chunk, and for ordinary ones gain little and slow frames down, so those stay in `pixels`.
    # `catalog.postgres.depth_arrays` decides which is which.
    "ALTER TABLE depth_chunks ADD COLUMN repeating bytea",
    "ALTER TABLE depth_chunks ALTER COLUMN pixels DROP NOT NULL",
    STATEMENT.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION").replace(
        "c.depths, c.pixels", "c.depths, coalesce(c.pixels, c.repeating)"
    ),
)


def upgrade() -> None:
    """Add a column, and let the function read it."""
    for statement in STATEMENTS:
        op.execute(text(statement))
