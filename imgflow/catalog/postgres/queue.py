"""Which images wait for a run, which run is requested for them, and what puts them back.

Also which images have a partition in Dagster. Locks of running batches are in `run_locks`.
"""

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

# External errors are retried after 2, 4, 8 … seconds, at most after ten minutes. The minimum of ten
# seconds is for launching the run: until Dagster knows it, only `not_before` shows the request.
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
        """Pending or unreported images that are due and in no active batch, oldest first."""
        statement = WAITING.bindparams(
            sa.bindparam("active", list(active), TEXT), source=self.source, kind=kind, most=most
        )
        return self.images(statement)

    def untouchable(self, kind: Kind, *, active: Sequence[str], rejected: bool = True) -> list[str]:
        """Keys that no further run should cover: images that a run has, and `rejected` ones.

        `active` are the batches that are queued or in progress.
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
        """Record the batch that is requested for these images, and when to retry if it fails.

        Returns:
            The ids of those that were still waiting; the others are not for this batch.
        """
        statement = ASSIGN.bindparams(
            sa.bindparam("ids", list(image_ids), BIGINT),
            sa.bindparam("active", list(active), TEXT),
            batch=batch,
        )
        rows = self.transaction(lambda connection: connection.execute(statement).all())
        return [row.id for row in rows]

    def has_requests(self) -> bool:
        """Whether a run was requested so recently that Dagster may not know it yet.

        Counts images that were deleted since: until the run has started, it needs their partitions.
        """
        query = sa.text(
            "SELECT EXISTS (SELECT FROM images AS i WHERE source = :source "
            "AND batch IS NOT NULL AND not_before > now() "
            "AND (state = 'pending' OR unreported OR state = 'deleted' "
            "AND NOT EXISTS (SELECT FROM run_holds AS h WHERE h.batch = i.batch)))"
        ).bindparams(source=self.source)
        return bool(self.transaction(lambda connection: connection.execute(query).scalar()))

    def is_due_soon(self, seconds: float) -> bool:
        """Whether a waiting image's pause ends within `seconds`, or has ended.

        Images with external errors do not count: their cause may last.
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
        """Queue images again on request."""
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
        """Queue images that lack an output, or have one of another recipe; return how many.

        `fingerprints` has the recipe's fingerprint by name of each enabled output. Only images
        whose key starts with `prefix` are queued, and only those of `keys` unless it is None.
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
        """Queue rejected images again, and return how many."""
        return self._reopen(kind, "rejected", prefix, keys)

    def outdate(self, kind: Kind, *, prefix: str = "", keys: Sequence[str] | None = None) -> int:
        """Queue ready images for a rebuild of all their outputs; return how many.

        Readers keep the current outputs until then. These get a fingerprint that no recipe
        has, so that what a killed run has rebuilt is not rebuilt again.
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
        """Queue an image again whose row names objects that do not exist."""
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
        """Record that Dagster does not match the rows of these ready images."""
        statement = sa.text(
            "UPDATE images SET unreported = true, batch = NULL, not_before = NULL "
            "WHERE id = ANY(:ids) AND state = 'ready'"
        ).bindparams(sa.bindparam("ids", list(image_ids), BIGINT))
        self.transaction(lambda connection: connection.execute(statement))


# Which rows have a partition in Dagster, now or soon.


# Finds the sources by jumping from one to the next in the index of keys.
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
        """Record that partitions are about to be added for these images.

        Called before they are added: an image that is deleted in between is then found by
        `leaving`.
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
        """Record that these deleted images no longer have a partition."""
        statement = sa.text(
            "UPDATE images SET in_partitions = false "
            "WHERE source = :source AND key = ANY(:keys) AND state = 'deleted'"
        ).bindparams(sa.bindparam("keys", list(keys), TEXT), source=self.source)
        self.transaction(lambda connection: connection.execute(statement))

    def needed_by_others(self, kind: Kind, keys: Sequence[str]) -> set[str]:
        """Those keys for which images of other sources need the same partition."""
        statement = NEEDED_BY_OTHERS.bindparams(
            sa.bindparam("keys", list(keys), TEXT), source=self.source, kind=kind
        )
        rows = self.transaction(lambda connection: connection.execute(statement).all())
        return {row.key for row in rows}

    def outside_partitions(self, kind: Kind, keys: Sequence[str]) -> set[str]:
        """Those keys whose images are known to need no partition: sealed or deleted."""
        statement = sa.text(
            "SELECT key FROM images WHERE source = :source AND kind = :kind AND key = ANY(:keys) "
            "AND NOT in_partitions"
        ).bindparams(sa.bindparam("keys", list(keys), TEXT), source=self.source, kind=kind)
        rows = self.transaction(lambda connection: connection.execute(statement).all())
        return {row.key for row in rows}

    def sealable(self, kind: Kind, *, most: int, before: datetime | None = None) -> list[str]:
        """Keys of settled images that have a partition, the longest unchanged first.

        With `before`, only images that have not changed since then.
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
        """Record that these images are settled and need no partition."""
        statement = sa.text(
            "UPDATE images SET in_partitions = false WHERE source = :source AND key = ANY(:keys) "
            "AND state IN ('ready', 'rejected') AND NOT unreported"
        ).bindparams(sa.bindparam("keys", list(keys), TEXT), source=self.source)
        self.transaction(lambda connection: connection.execute(statement))
