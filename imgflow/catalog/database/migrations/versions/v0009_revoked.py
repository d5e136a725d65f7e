"""Ended sessions and used sign-in keys, kept until they would have expired."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "revoked",
        sa.Column("id", sa.Text, primary_key=True, comment="of a session or a sign-in key"),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False, comment="kept as long"),
    )
