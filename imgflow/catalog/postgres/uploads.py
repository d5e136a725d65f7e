"""From a listing to rows, one page at a time, and the deletion of rows.

Almost every page of almost every listing shows only known uploads. So the first query is one
statement that answers yes or no (`Comparing`); only a page with a difference is sent completely.

The order in which an image is deleted from all stores is in `catalog.lifecycle`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from imgflow.catalog.database.engine import BIGINT, TEXT, Connected, outages_in_words, retried
from imgflow.catalog.database.tables import COLUMNS
from imgflow.catalog.records import Announcement, Image, image_of, kind_of
from imgflow.errors import SourceChanged
from imgflow.store.objects import Digest, SourceObject

# Hashes the same bytes as `Digest`. Everything a page shows has a row with the last announced
# upload and an object that exists; and everything with such a row is shown, including images that
# were deleted by hand and wait for another upload. Keys come in index order, without a sort.
KNOWS = {
    covers: sa.text(
        f"""
        SELECT encode(sha256(coalesce(string_agg(
            convert_to(key, 'UTF8') || '\\x00'::bytea || convert_to({column}, 'UTF8'),
            '\\x00'::bytea ORDER BY key), '')), 'hex') = :sha256
        FROM images
        WHERE source = :source AND key > :after AND (:until IS NULL OR key <= :until)
            AND gone_at IS NULL
        """  # noqa: S608 - our own column
    )
    for covers, column in (("identity", "announced"), ("etag", "announced_etag"))
}

# Known uploads are only read: an `ON CONFLICT` over all of them would lock, and so write, every
# row. All processes use the same order, so two of them wait but never deadlock.
#
# A new upload is requested immediately, unless run after run found yet another one and could read
# none: something that looks new on every read would be requested forever.
ANNOUNCE = sa.text(
    f"""
    WITH page AS (
        SELECT * FROM unnest(:keys, :kinds, :identities, :etags, :versions, :sizes, :modified)
            AS page(key, kind, identity, etag, version_id, size, last_modified)
    ), unknown AS (
        SELECT page.*, i.state AS was
        FROM page LEFT JOIN images AS i ON i.source = :source AND i.key = page.key
        WHERE i.id IS NULL OR i.announced <> page.identity OR i.gone_at IS NOT NULL
    ), written AS (
        INSERT INTO images AS i (
            source, key, kind, state, announced, announced_etag, announced_version_id,
            announced_size, announced_last_modified, etag, version_id, size, last_modified
        )
        SELECT :source, key, kind, 'pending', identity, etag, version_id, size, last_modified,
               etag, version_id, size, last_modified
        FROM unknown ORDER BY key COLLATE "C"
        ON CONFLICT (source, key) DO UPDATE SET
            state = CASE WHEN i.announced = excluded.announced AND i.state <> 'deleted'
                THEN i.state ELSE 'pending' END,
            announced = excluded.announced, announced_etag = excluded.announced_etag,
            announced_version_id = excluded.announced_version_id,
            announced_size = excluded.announced_size,
            announced_last_modified = excluded.announced_last_modified,
            gone_at = NULL, batch = NULL, updated_at = now(),
            attempts = CASE WHEN i.reason_code = :changing THEN i.attempts ELSE 0 END,
            not_before = CASE WHEN i.reason_code = :changing AND i.attempts >= :patience
                THEN i.not_before END
        WHERE i.announced <> excluded.announced OR i.gone_at IS NOT NULL
        RETURNING {COLUMNS}, (xmax = 0) AS inserted
    )
    SELECT {COLUMNS}, i.inserted OR unknown.was = 'deleted' AS is_new
    FROM written AS i JOIN unknown ON unknown.key = i.key COLLATE "C" ORDER BY i.key
    """  # noqa: S608 - column names of our own table
)

# Rows in the key range of a page whose objects the page lacks.
VANISHED = sa.text(
    f"""
    SELECT {COLUMNS} FROM images AS i
    WHERE i.source = :source AND i.key > :after AND (:until IS NULL OR i.key <= :until)
        AND i.gone_at IS NULL AND i.key <> ALL(:keys)
    ORDER BY i.key
    """  # noqa: S608 - column names of our own table
)

# After this many runs that found an upload changed or gone, the next waits as after other errors.
MOST_UNREAD = 3

TIME = sa.ARRAY(sa.DateTime(timezone=True))


class Comparing:
    """A connection that is kept for the duration of a listing, to compare its pages.

    Its statements run without BEGIN and COMMIT, so a page costs one round trip.
    """

    def __init__(self, engine: sa.Engine, source: str) -> None:
        """Take an engine and the source's canonical URL; nothing is connected yet."""
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._source = source
        self._connection: sa.Connection | None = None

    def knows(self, after: str | None, until: str | None, digest: Digest) -> bool:
        """Whether all uploads on a page of a listing are known, and no known one is missing.

        Args:
            after: Key after which the page starts; None for the start of the listing.
            until: Last key of the page; None if the listing ended with this page.
            digest: Digest of the page's objects.
        """
        statement = KNOWS[digest.covers].bindparams(
            sa.bindparam("until", until, sa.Text),
            source=self._source,
            after=after or "",
            sha256=digest.sha256,
        )

        def attempt() -> bool:
            if self._connection is None:
                self._connection = self._engine.connect()
            try:
                return bool(self._connection.execute(statement).scalar())
            except BaseException:
                self.close()  # the next attempt opens another one
                raise

        return retried(self._engine, attempt)

    def close(self) -> None:
        """Return the connection to the pool."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def announce(
    connection: sa.Connection, source: str, uploads: Sequence[SourceObject]
) -> Announcement:
    """Make new and changed uploads pending; see `PostgresCatalog.announce`."""
    if not uploads:
        return Announcement([], [], 0)
    uploads = list({upload.key: upload for upload in uploads}.values())
    statement = ANNOUNCE.bindparams(
        sa.bindparam("keys", [u.key for u in uploads], TEXT),
        sa.bindparam("kinds", [kind_of(u.key) for u in uploads], TEXT),
        sa.bindparam("identities", [u.identity for u in uploads], TEXT),
        sa.bindparam("etags", [u.etag for u in uploads], TEXT),
        sa.bindparam("versions", [u.version_id for u in uploads], TEXT),
        sa.bindparam("sizes", [u.size for u in uploads], BIGINT),
        sa.bindparam("modified", [u.last_modified for u in uploads], TIME),
        source=source,
        changing=SourceChanged.code,
        patience=MOST_UNREAD,
    )
    rows = connection.execute(statement).mappings().all()
    # The others came back unchanged after their object was gone.
    pending = [row for row in rows if row["state"] == "pending"]
    new = [image_of(row) for row in pending if row["is_new"]]
    changed = [image_of(row) for row in pending if not row["is_new"]]
    return Announcement(new, changed, len(uploads) - len(pending))


def vanished(
    connection: sa.Connection,
    source: str,
    after: str | None,
    until: str | None,
    keys: Sequence[str],
) -> list[Image]:
    """Find the rows that a page should have shown; see `PostgresCatalog.vanished`."""
    statement = VANISHED.bindparams(
        sa.bindparam("keys", list(keys), TEXT),
        sa.bindparam("until", until, sa.Text),
        source=source,
        after=after or "",
    )
    return [image_of(row) for row in connection.execute(statement).mappings()]


# How rows end: their object is gone, they are deleted, they are erased.


# The batch stays: a requested run may not have been launched yet, and needs the partition.
TOMBSTONE = sa.text(
    """
    WITH old AS (
        SELECT id, state, outputs FROM images WHERE id = ANY(:ids) ORDER BY id FOR NO KEY UPDATE
    ), chunks AS (DELETE FROM depth_chunks WHERE image_id = ANY(:ids))
    UPDATE images AS i SET state = 'deleted', outputs = '{}', reason = NULL, reason_code = NULL,
        gone_at = CASE WHEN :is_gone THEN coalesce(i.gone_at, now()) ELSE i.gone_at END,
        attempts = 0, unreported = false, updated_at = now()
    FROM old WHERE i.id = old.id RETURNING i.id, old.state, old.outputs
    """
)

HOLD_DELETED = sa.text(
    """
    WITH held AS (
        SELECT id FROM images WHERE id = ANY(:ids) AND state = 'deleted'
        ORDER BY id FOR NO KEY UPDATE
    ), chunks AS (DELETE FROM depth_chunks USING held WHERE image_id = held.id)
    SELECT id FROM held
    """
)


class Ending(Connected):
    """Images whose object is gone, or that someone deletes."""

    def forget_uploads(self, keys: Sequence[str]) -> None:
        """Withdraw announcements of uploads that were deleted before they were read.

        An image that was processed before returns to that state; the next listing misses its object
        and applies the setting. Any other image counts as deleted.
        """
        statement = sa.text(
            """
            UPDATE images SET state = CASE WHEN outputs = '{}' THEN 'deleted' ELSE 'ready' END,
                gone_at = CASE WHEN outputs = '{}' THEN now() END,
                announced = coalesce(processed, announced),
                announced_etag = coalesce(etag, announced_etag),
                announced_version_id = version_id,
                announced_size = coalesce(size, announced_size),
                announced_last_modified = coalesce(last_modified, announced_last_modified),
                batch = CASE WHEN outputs = '{}' THEN batch END,
                attempts = CASE WHEN outputs = '{}' THEN attempts ELSE 0 END,
                reason = CASE WHEN outputs = '{}' THEN 'it was gone before it was read'
                    ELSE reason END,
                reason_code = CASE WHEN outputs = '{}' THEN :changing ELSE reason_code END,
                not_before = CASE WHEN outputs = '{}' THEN not_before END, updated_at = now()
            WHERE source = :source AND key = ANY(:keys) AND state = 'pending'
            """
        ).bindparams(
            sa.bindparam("keys", list(keys), TEXT),
            source=self.source,
            changing=SourceChanged.code,
        )
        self.transaction(lambda connection: connection.execute(statement))

    def mark_gone(self, image_ids: Sequence[int]) -> None:
        """Record that the objects of these images are gone; the images stay as they are."""
        statement = sa.text("UPDATE images SET gone_at = now() WHERE id = ANY(:ids)").bindparams(
            sa.bindparam("ids", list(image_ids), BIGINT)
        )
        self.transaction(lambda connection: connection.execute(statement))

    def tombstone(
        self, image_ids: Sequence[int], *, is_gone: bool
    ) -> dict[int, Mapping[str, Mapping[str, Any]]]:
        """Turn rows into tombstones, and delete their arrays.

        With `is_gone`, the uploaded objects are gone too, so any object that appears under the key
        is a new upload. Otherwise, only an overwritten one is.

        Returns:
            Outputs by id of image, for images that were not deleted before. The caller removes the
            pictures.
        """
        statement = TOMBSTONE.bindparams(
            sa.bindparam("ids", list(image_ids), BIGINT), is_gone=is_gone
        )
        rows = self.transaction(lambda connection: connection.execute(statement).all())
        return {row.id: row.outputs for row in rows if row.state != "deleted"}

    @contextmanager
    def held_deleted(self, image_ids: Sequence[int]) -> Iterator[set[int]]:
        """Keep deleted images from coming back while the block lasts, and yield their ids.

        Deletes arrays that a worker has written for them. Announcing a new upload of one waits.
        """
        with outages_in_words(self.engine), self.engine.begin() as connection:
            yield {row.id for row in connection.execute(HOLD_DELETED, {"ids": list(image_ids)})}

    def erase_left(self) -> int:
        """Delete the rows of deleted images without partition and object; return how many.

        If the object still exists, the row stays: without it, the object would look like a new
        upload.
        """
        statement = sa.text(
            "DELETE FROM images WHERE source = :source AND state = 'deleted' AND NOT in_partitions "
            "AND gone_at IS NOT NULL"
        ).bindparams(source=self.source)
        return self.transaction(lambda connection: connection.execute(statement).rowcount)
