"""The table `catalogue`: one row, which distinguishes this catalogue from all others."""

from alembic import op
from sqlalchemy import text

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table with its row."""
    op.execute(
        text(
            """
            CREATE TABLE catalogue (
                id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
                is_only boolean NOT NULL DEFAULT true UNIQUE CHECK (is_only)
            )
            """
        )
    )
    op.execute(text("INSERT INTO catalogue DEFAULT VALUES"))
