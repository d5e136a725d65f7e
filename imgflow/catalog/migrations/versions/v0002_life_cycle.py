"""When the object of an image was gone, and whether the image has a partition."""

from alembic import op
from sqlalchemy import text

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

STATEMENTS = (
    "ALTER TABLE images ADD COLUMN gone_at timestamptz",
    "ALTER TABLE images ADD COLUMN in_partitions boolean NOT NULL DEFAULT false",
    "UPDATE images SET in_partitions = true WHERE processed IS NOT NULL",
    "CREATE INDEX images_size ON images (source, size) WHERE state = 'ready'",
    "CREATE INDEX images_leaving ON images (source, kind) "
    "WHERE state = 'deleted' AND in_partitions",
)


def upgrade() -> None:
    """Add two columns and two indexes."""
    for statement in STATEMENTS:
        op.execute(text(statement))
