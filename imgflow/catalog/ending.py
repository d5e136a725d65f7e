"""How rows end: gone from the source, deleted, erased."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from imgflow.catalog.connected import BIGINT, TEXT, Connected
from imgflow.catalog.database.engine import outages_in_words
from imgflow.errors import SourceChanged

# The batch stays: a run that was asked for may not be launched yet, and needs the partition.
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
    """Images whose object is gone, or that somebody deletes."""

    def forget_uploads(self, keys: Sequence[str]) -> None:
        """Take back announcements of uploads that were deleted before they were read.

        An image that was processed before stays as it was then, and the next listing, which misses
        its object, does with it what the setting says; any other counts as deleted.
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
        """Note that the objects of these images are gone; the images stay as they are."""
        statement = sa.text("UPDATE images SET gone_at = now() WHERE id = ANY(:ids)").bindparams(
            sa.bindparam("ids", list(image_ids), BIGINT)
        )
        self.transaction(lambda connection: connection.execute(statement))

    def tombstone(
        self, image_ids: Sequence[int], *, is_gone: bool
    ) -> dict[int, Mapping[str, Mapping[str, Any]]]:
        """Make images deleted ones.

        Args:
            image_ids: rows.
            is_gone: their uploaded objects are gone too, so that one which appears under the key is
                a new upload. Else only an overwritten one is.

        Returns:
            The outputs that their rows named, by id, of those that were not deleted before. Arrays
            are gone with this; the pictures are the caller's to remove.
        """
        statement = TOMBSTONE.bindparams(
            sa.bindparam("ids", list(image_ids), BIGINT), is_gone=is_gone
        )
        rows = self.transaction(lambda connection: connection.execute(statement).all())
        return {row.id: row.outputs for row in rows if row.state != "deleted"}

    @contextmanager
    def held_deleted(self, image_ids: Sequence[int]) -> Iterator[set[int]]:
        """Keep deleted images from coming back while the block lasts, and yield their ids.

        Arrays that a worker has written for them go. Whoever announces a new upload of one waits.
        """
        with outages_in_words(self.engine), self.engine.begin() as connection:
            yield {row.id for row in connection.execute(HOLD_DELETED, {"ids": list(image_ids)})}

    def erase_left(self) -> int:
        """Delete the rows of deleted images that have no partition and no object any more.

        Without its row an object that is still there would be taken for a new upload.

        Returns:
            How many.
        """
        statement = sa.text(
            "DELETE FROM images WHERE source = :source AND state = 'deleted' AND NOT in_partitions "
            "AND gone_at IS NOT NULL"
        ).bindparams(source=self.source)
        return self.transaction(lambda connection: connection.execute(statement).rowcount)
