"""What waits for a run, which run is asked for it, and what makes it wait again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from imgflow.catalog.database.engine import BIGINT, TEXT, Connected
from imgflow.catalog.database.tables import COLUMNS, images, is_storable
from imgflow.catalog.records import Image, Kind, State
from imgflow.errors import TROUBLE_CODES

WAITING = sa.text(
    f"""
    SELECT {COLUMNS} FROM images AS i
    WHERE i.source = :source AND (i.state = 'pending' OR i.unreported) AND i.kind = :kind
        AND (i.batch IS NULL OR NOT i.batch = ANY(:active))
        AND (i.not_before IS NULL OR i.not_before <= now())
    ORDER BY i.id LIMIT :most
    """  # noqa: S608 - column names of our own table
)

# Trouble outside is retried after 2, 4, 8 … seconds, at most after ten minutes. Ten are left to the
# launch of the run: until Dagster knows it, only `not_before` says that the images were asked for.
ASSIGN = sa.text(
    """
    UPDATE images SET batch = :batch, attempts = attempts + 1, in_partitions = true,
        not_before = now() + interval '1 second'
            * greatest(10, least(power(2, least(attempts + 1, 10)), 600))
    WHERE id = ANY(:ids) AND (state = 'pending' OR unreported)
        AND (batch IS NULL OR NOT batch = ANY(:active))
        AND (not_before IS NULL OR not_before <= now())
    RETURNING id
    """
)


class Requesting(Connected):
    """Images that are pending or unreported."""

    def waiting(self, kind: Kind, *, active: Sequence[str], most: int) -> list[Image]:
        """Images that are pending or unreported, in no active batch, and due; oldest first."""
        statement = WAITING.bindparams(
            sa.bindparam("active", list(active), TEXT), source=self.source, kind=kind, most=most
        )
        return self.images(statement)

    def untouchable(self, kind: Kind, *, active: Sequence[str], rejected: bool = True) -> list[str]:
        """Keys that no further run should cover: those in the hands of a run, and rejected images.

        Args:
            kind: of images.
            active: batches that are queued or going on.
            rejected: False leaves the rejected ones out.
        """
        statement = sa.text(
            "SELECT key FROM images WHERE source = :source AND kind = :kind "
            "AND :rejected AND state = 'rejected' AND in_partitions "
            "UNION ALL SELECT key FROM images WHERE source = :source AND kind = :kind "
            "AND (state = 'pending' OR unreported) "
            "AND (batch = ANY(:active) OR batch IS NOT NULL AND not_before > now())"
        ).bindparams(
            sa.bindparam("active", list(active), TEXT),
            source=self.source,
            kind=kind,
            rejected=rejected,
        )
        rows = self.transaction(lambda connection: connection.execute(statement).all())
        return [row.key for row in rows]

    def assign(
        self, image_ids: Sequence[int], batch: str, *, active: Sequence[str] = ()
    ) -> list[int]:
        """Note which batch is asked for these images, and when to ask again should it fail.

        Returns:
            The ids of those that were still waiting; the others are not the caller's.
        """
        statement = ASSIGN.bindparams(
            sa.bindparam("ids", list(image_ids), BIGINT),
            sa.bindparam("active", list(active), TEXT),
            batch=batch,
        )
        rows = self.transaction(lambda connection: connection.execute(statement).all())
        return [row.id for row in rows]

    def has_requests(self) -> bool:
        """Whether images were asked for so lately that Dagster may not know the run yet.

        Also images that were deleted since: the run needs their partitions all the same, until it
        has begun.
        """
        query = sa.text(
            "SELECT EXISTS (SELECT FROM images AS i WHERE source = :source "
            "AND batch IS NOT NULL AND not_before > now() "
            "AND (state = 'pending' OR unreported OR state = 'deleted' "
            "AND NOT EXISTS (SELECT FROM run_holds AS h WHERE h.batch = i.batch)))"
        ).bindparams(source=self.source)
        return bool(self.transaction(lambda connection: connection.execute(query).scalar()))

    def is_due_soon(self, seconds: float) -> bool:
        """Whether an image waits whose pause ends so soon, or has ended since the caller asked.

        Images in trouble do not count: what keeps them may last.
        """
        query = sa.text(
            "SELECT EXISTS (SELECT FROM images WHERE source = :source "
            "AND (state = 'pending' OR unreported) "
            "AND coalesce(reason_code, '') <> ALL(:troubles) "
            "AND (unreported AND not_before IS NULL "
            "OR not_before <= now() + :seconds * interval '1 second'))"
        ).bindparams(
            sa.bindparam("troubles", list(TROUBLE_CODES), TEXT),
            source=self.source,
            seconds=seconds,
        )
        return bool(self.transaction(lambda connection: connection.execute(query).scalar()))

    def reopen(self, image_ids: Sequence[int]) -> None:
        """Make images pending again, since someone asked for it."""
        statement = sa.text(
            "UPDATE images SET state = 'pending', batch = NULL, attempts = 0, not_before = NULL, "
            "updated_at = now() WHERE id = ANY(:ids) AND state <> 'deleted'"
        ).bindparams(sa.bindparam("ids", list(image_ids), BIGINT))
        self.transaction(lambda connection: connection.execute(statement))

    def reopen_stale(
        self,
        kind: Kind,
        fingerprints: Mapping[str, str],
        *,
        prefix: str = "",
        keys: Sequence[str] | None = None,
    ) -> int:
        """Make images pending that lack an output, or have one made with another recipe.

        Args:
            kind: of images.
            fingerprints: of the recipe of each output that is enabled.
            prefix: only of images whose key begins so.
            keys: only of these.

        Returns:
            How many.
        """
        stale = sa.or_(
            *(
                images.c.outputs[name]["fingerprint"].astext.is_distinct_from(fingerprint)
                for name, fingerprint in fingerprints.items()
            )
        )
        return self._reopen(kind, "ready", prefix, keys, where=[images.c.gone_at.is_(None), stale])

    def reopen_rejected(
        self, kind: Kind, *, prefix: str = "", keys: Sequence[str] | None = None
    ) -> int:
        """Make rejected images pending, and return how many."""
        return self._reopen(kind, "rejected", prefix, keys)

    def outdate(self, kind: Kind, *, prefix: str = "", keys: Sequence[str] | None = None) -> int:
        """Make ready images pending whose outputs are all to be made again; return how many.

        Readers have the present ones until then. No recipe has the fingerprint that they get, so
        that what a killed run has made is not made once more.
        """
        outdated = sa.text(
            """(SELECT coalesce(jsonb_object_agg(name, record || '{"fingerprint": ""}'), '{}')
                FROM jsonb_each(outputs) AS o(name, record))"""
        )
        return self._reopen(
            kind,
            "ready",
            prefix,
            keys,
            where=[images.c.gone_at.is_(None)],
            values={"outputs": outdated},
        )

    def _reopen(
        self,
        kind: Kind,
        state: State,
        prefix: str,
        keys: Sequence[str] | None,
        *,
        where: Sequence[sa.ColumnElement[bool]] = (),
        values: Mapping[str, Any] | None = None,
    ) -> int:
        if not is_storable(prefix):
            return 0
        statement = sa.update(images).where(
            images.c.source == self.source, images.c.kind == kind, images.c.state == state, *where
        )
        if prefix:
            statement = statement.where(images.c.key.startswith(prefix, autoescape=True))
        if keys is not None:
            statement = statement.where(images.c.key == sa.any_(sa.literal(list(keys), TEXT)))
        statement = statement.values(
            state="pending",
            batch=None,
            attempts=0,
            not_before=None,
            updated_at=sa.func.now(),
            **(values or {}),
        )
        return self.transaction(lambda connection: connection.execute(statement).rowcount)

    def reopen_without(self, image_id: int, names: Sequence[str]) -> None:
        """Make an image pending again whose row names objects that are not there."""
        statement = sa.text(
            """
            UPDATE images SET state = 'pending', batch = NULL, attempts = 0, not_before = NULL,
                updated_at = now(), outputs = coalesce((
                    SELECT jsonb_object_agg(name, record)
                    FROM jsonb_each(outputs) AS o(name, record)
                    WHERE NOT record ->> 'name' = ANY(:names)
                ), '{}')
            WHERE id = :id AND state = 'ready'
            """
        ).bindparams(sa.bindparam("names", list(names), TEXT), id=image_id)
        self.transaction(lambda connection: connection.execute(statement))

    def unreport(self, image_ids: Sequence[int]) -> None:
        """Note that Dagster does not say of these ready images what their rows do."""
        statement = sa.text(
            "UPDATE images SET unreported = true, batch = NULL, not_before = NULL "
            "WHERE id = ANY(:ids) AND state = 'ready'"
        ).bindparams(sa.bindparam("ids", list(image_ids), BIGINT))
        self.transaction(lambda connection: connection.execute(statement))


# Which rows have a partition in Dagster: those in its sets, or about to be.


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
