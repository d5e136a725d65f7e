"""When an image's object disappeared, and whether the image has a partition."""

from alembic import op
from sqlalchemy import text

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

STATEMENTS = (
    "ALTER TABLE images ADD COLUMN gone_at timestamptz",
    # True for all existing rows without an update: nearly all were processed, and updating 300,000
    # took a minute under a lock that keeps readers out.
    "ALTER TABLE images ADD COLUMN in_partitions boolean NOT NULL DEFAULT true",
    "ALTER TABLE images ALTER COLUMN in_partitions SET DEFAULT false",
    "UPDATE images SET in_partitions = false WHERE processed IS NULL",
    "CREATE INDEX images_size ON images (source, size) WHERE state = 'ready'",
    "CREATE INDEX images_leaving ON images (source, kind) "
    "WHERE state = 'deleted' AND in_partitions",
)


def upgrade() -> None:
    """Add two columns and two indexes."""
    for statement in STATEMENTS:
        op.execute(text(statement))
