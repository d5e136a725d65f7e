"""Which rows have a partition in Dagster: those in its sets, or about to be."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa

from imgflow.catalog.connected import BIGINT, TEXT, Connected
from imgflow.catalog.records import Kind

# The sources are found by jumping from one to the next in the index of keys.
NEEDED_BY_OTHERS = sa.text(
    """
    WITH RECURSIVE sources(source) AS (
        SELECT min(source) FROM images
        UNION ALL
        SELECT (SELECT min(i.source) FROM images AS i WHERE i.source > s.source)
        FROM sources AS s WHERE s.source IS NOT NULL
    )
    SELECT i.key FROM sources AS s JOIN images AS i ON i.source = s.source
    WHERE s.source <> :source AND i.key = ANY(:keys) AND i.kind = :kind AND i.in_partitions
        AND i.state <> 'deleted'
    """
)


class Partitioned(Connected):
    """The column `in_partitions`."""

    def entering(self, image_ids: Sequence[int]) -> None:
        """Note that partitions are about to be added for these images.

        Before they are: one that is deleted in between is then among those that leave.
        """
        statement = sa.text(
            "UPDATE images SET in_partitions = true WHERE id = ANY(:ids) AND NOT in_partitions"
        ).bindparams(sa.bindparam("ids", list(image_ids), BIGINT))
        self.transaction(lambda connection: connection.execute(statement))

    def leaving(self, kind: Kind, *, most: int) -> list[str]:
        """Keys of deleted images that still have a partition."""
        statement = sa.text(
            "SELECT key FROM images WHERE source = :source AND kind = :kind "
            "AND state = 'deleted' AND in_partitions ORDER BY id LIMIT :most"
        ).bindparams(source=self.source, kind=kind, most=most)
        rows = self.transaction(lambda connection: connection.execute(statement).all())
        return [row.key for row in rows]

    def has_leaving(self) -> bool:
        """Whether a deleted image still has a partition."""
        query = sa.text(
            "SELECT EXISTS (SELECT FROM images WHERE source = :source AND state = 'deleted' "
            "AND in_partitions)"
        ).bindparams(source=self.source)
        return bool(self.transaction(lambda connection: connection.execute(query).scalar()))

    def left(self, keys: Sequence[str]) -> None:
        """Note that these deleted images have no partition any more."""
        statement = sa.text(
            "UPDATE images SET in_partitions = false "
            "WHERE source = :source AND key = ANY(:keys) AND state = 'deleted'"
        ).bindparams(sa.bindparam("keys", list(keys), TEXT), source=self.source)
        self.transaction(lambda connection: connection.execute(statement))

    def needed_by_others(self, kind: Kind, keys: Sequence[str]) -> set[str]:
        """Those of the keys whose partitions images of other sources have, too."""
        statement = NEEDED_BY_OTHERS.bindparams(
            sa.bindparam("keys", list(keys), TEXT), source=self.source, kind=kind
        )
        rows = self.transaction(lambda connection: connection.execute(statement).all())
        return {row.key for row in rows}

    def outside_partitions(self, kind: Kind, keys: Sequence[str]) -> set[str]:
        """Those of the keys whose images are known to need no partition: sealed, or deleted."""
        statement = sa.text(
            "SELECT key FROM images WHERE source = :source AND kind = :kind AND key = ANY(:keys) "
            "AND NOT in_partitions"
        ).bindparams(sa.bindparam("keys", list(keys), TEXT), source=self.source, kind=kind)
        rows = self.transaction(lambda connection: connection.execute(statement).all())
        return {row.key for row in rows}

    def sealable(self, kind: Kind, *, most: int, before: datetime | None = None) -> list[str]:
        """Keys of images that have a partition and are settled, the longest unchanged first.

        Args:
            kind: of images.
            most: keys.
            before: only those that are unchanged since then.
        """
        statement = sa.text(
            "SELECT key FROM images WHERE source = :source AND kind = :kind AND in_partitions "
            "AND state IN ('ready', 'rejected') AND NOT unreported "
            "AND (:before IS NULL OR updated_at < :before) ORDER BY updated_at, id LIMIT :most"
        ).bindparams(
            sa.bindparam("before", before, sa.DateTime(timezone=True)),
            source=self.source,
            kind=kind,
            most=most,
        )
        rows = self.transaction(lambda connection: connection.execute(statement).all())
        return [row.key for row in rows]

    def seal(self, keys: Sequence[str]) -> None:
        """Note that these images are settled and need no partition."""
        statement = sa.text(
            "UPDATE images SET in_partitions = false WHERE source = :source AND key = ANY(:keys) "
            "AND state IN ('ready', 'rejected') AND NOT unreported"
        ).bindparams(sa.bindparam("keys", list(keys), TEXT), source=self.source)
        self.transaction(lambda connection: connection.execute(statement))
