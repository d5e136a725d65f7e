"""When each sensor last looked at its source, and when its next good tick is due."""

from alembic import op
from sqlalchemy import text

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

STATEMENT = """
CREATE TABLE sensor_ticks (
    source text NOT NULL,
    sensor text NOT NULL,
    good_at timestamptz,
    ended_at timestamptz NOT NULL,
    due_at timestamptz NOT NULL,
    trouble text,
    PRIMARY KEY (source, sensor)
)
"""


def upgrade() -> None:
    """Create the table."""
    op.execute(text(STATEMENT))
