"""Indexes that keep the cost of sealing and of range runs independent of all other images."""

from alembic import op
from sqlalchemy import text

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

STATEMENTS = (
    # Finds the images that changed longest ago without sorting 100,000 to seal a few.
    """
    CREATE INDEX images_hot_since ON images (source, kind, updated_at, id) WHERE in_partitions
    """,
    # Finds barriers for ranges without reading all rejected images that are sealed.
    """
    CREATE INDEX images_hot_rejected ON images (source, kind, key)
    WHERE state = 'rejected' AND in_partitions
    """,
)


def upgrade() -> None:
    """Create two indexes."""
    for statement in STATEMENTS:
        op.execute(text(statement))
