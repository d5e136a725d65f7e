"""The table `run_holds`; which images Dagster may not know of, and which have a partition."""

from alembic import op
from sqlalchemy import text

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table, and the indexes of waiting images and of images with a partition."""
    op.execute(
        text(
            """
            CREATE TABLE run_holds (
                run_id text PRIMARY KEY,
                source text NOT NULL,
                kind text NOT NULL,
                batch text NOT NULL,
                image_ids bigint[] NOT NULL,
                began_at timestamptz NOT NULL DEFAULT now(),
                ended_at timestamptz,
                images bigint NOT NULL DEFAULT 0,
                bytes bigint NOT NULL DEFAULT 0
            )
            """
        )
    )
    op.execute(text("CREATE INDEX run_holds_open ON run_holds (source) WHERE ended_at IS NULL"))
    op.execute(text("CREATE INDEX run_holds_ended ON run_holds (source, kind, ended_at)"))
    op.execute(text("ALTER TABLE images ADD COLUMN unreported boolean NOT NULL DEFAULT false"))
    op.execute(text("DROP INDEX images_pending"))
    op.execute(
        text(
            "CREATE INDEX images_pending ON images (source, id) "
            "WHERE state = 'pending' OR unreported"
        )
    )
    op.execute(text("CREATE INDEX images_hot ON images (source, kind, id) WHERE in_partitions"))
