"""What a listing tells the catalogue, one page at a time.

Almost every page of almost every listing shows what is known already. So the first question is one
statement that answers yes or no (`Comparing`); only a page with a difference is sent as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from imgflow.catalog.connected import BIGINT, TEXT
from imgflow.catalog.database.engine import retried
from imgflow.catalog.database.tables import COLUMNS
from imgflow.catalog.records import Announcement, Image, image_of, kind_of
from imgflow.errors import SourceChanged
from imgflow.store.objects import Digest, SourceObject

# The same bytes as `Digest`: whatever a page shows has a row with the upload announced last and an
# object that is there, and whatever has such a row is shown, also an image deleted by hand, which
# waits for another upload. The range of keys comes in the order of the index, so nothing is sorted.
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
# row. The order is the same in every process, so that two of them wait but never deadlock.
#
# Another upload is asked for at once. Not so where run after run found yet another one and could
# read none: something looks new each time it is looked at, and would be asked for forever.
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

# Rows in the stretch of keys that a page covers, whose objects the page does not have.
VANISHED = sa.text(
    f"""
    SELECT {COLUMNS} FROM images AS i
    WHERE i.source = :source AND i.key > :after AND (:until IS NULL OR i.key <= :until)
        AND i.gone_at IS NULL AND i.key <> ALL(:keys)
    ORDER BY i.key
    """  # noqa: S608 - column names of our own table
)

# Runs that found an upload changed or gone, after which a further one waits as after other trouble.
MOST_UNREAD = 3

TIME = sa.ARRAY(sa.DateTime(timezone=True))


class Comparing:
    """A connection kept for as long as a listing takes, on which pages are compared.

    Its statements stand alone, without BEGIN and COMMIT: a page costs one trip to the server.
    """

    def __init__(self, engine: sa.Engine, source: str) -> None:
        """Take an engine and the canonical URL of the source; nothing is asked yet."""
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._source = source
        self._connection: sa.Connection | None = None

    def knows(self, after: str | None, until: str | None, digest: Digest) -> bool:
        """Whether a page of a listing shows just what is known, so that nothing is to be noted.

        Args:
            after: where the page began; None for the very beginning.
            until: its last key; None when the listing ended with it.
            digest: of what it shows.
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
                self.close()  # the next attempt gets another one
                raise

        return retried(self._engine, attempt)

    def close(self) -> None:
        """Give the connection back."""
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
    # The others are back after their object was gone, as they were.
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
