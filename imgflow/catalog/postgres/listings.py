"""Reading rows of images: by key, id or content, in pages, as counts, and for the gallery.

Writing rows is in `uploads`, `queue` and `results`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa

from imgflow.catalog.database.engine import BIGINT, TEXT, Connected
from imgflow.catalog.database.tables import COLUMNS, images, is_storable
from imgflow.catalog.records import Content, Count, Failing, Image, Kind, State
from imgflow.errors import TROUBLE_CODES

SAME_SIZE = sa.text(
    f"""
    SELECT {COLUMNS} FROM unnest(:sizes) AS wanted(size) CROSS JOIN LATERAL (
        SELECT * FROM images WHERE source = :source AND size = wanted.size
            AND state = 'ready' AND kind = :kind
        ORDER BY id DESC LIMIT :most
    ) AS i
    """  # noqa: S608 - column names of our own table
)


# Images that wait because they failed: an attempt met an external error, or several ended without
# any result. A new upload, or a person who asks, resets this.
FAILED = """
    i.source = :source AND i.state = 'pending' AND i.gone_at IS NULL
    AND (i.reason_code = ANY(:troubles) AND (i.attempts > 0 OR i.not_before IS NOT NULL)
        OR i.attempts > 1)
"""

FAILING = sa.text(
    f"""
    SELECT code, count(*) AS count, min(not_before) AS retry_at,
        (array_agg(key ORDER BY id DESC))[1] AS key,
        (array_agg(reason ORDER BY id DESC))[1] AS reason
    FROM (
        SELECT id, key, not_before,
            CASE WHEN known THEN reason_code ELSE 'interrupted' END AS code,
            CASE WHEN known THEN reason ELSE 'runs ended before they came to it' END AS reason
        FROM (SELECT *, coalesce(i.reason_code = ANY(:troubles), false) AS known FROM images AS i
            WHERE {FAILED}) AS failed
    ) AS told
    GROUP BY code ORDER BY count(*) DESC, code
    """  # noqa: S608 - our own columns
)

# Created once: an alias collects all columns again, which takes half a millisecond.
ROWS = images.alias("i")


class Reading(Connected):
    """Rows by key, id and content, in pages, and counts of them."""

    def by_keys(self, keys: Sequence[str]) -> dict[str, Image]:
        """Rows of these keys, by key; unknown keys are left out."""
        statement = sa.text(
            f"SELECT {COLUMNS} FROM images AS i WHERE i.source = :source AND i.key = ANY(:keys)"  # noqa: S608 - our own columns
        ).bindparams(
            sa.bindparam("keys", [key for key in keys if is_storable(key)], TEXT),
            source=self.source,
        )
        return {image.key: image for image in self.images(statement)}

    def by_id(self, image_id: int) -> Image | None:
        """One row; None if it does not exist."""
        if not 0 < image_id < 2**63:
            return None  # ids come from outside, and the database refuses to compare such a number
        statement = sa.text(
            f"SELECT {COLUMNS} FROM images AS i WHERE i.source = :source AND i.id = :id"  # noqa: S608 - our own columns
        ).bindparams(source=self.source, id=image_id)
        return next(iter(self.images(statement)), None)

    def by_ids(self, image_ids: Sequence[int]) -> list[Image]:
        """Rows of these ids, in ascending order of id."""
        statement = sa.text(
            f"SELECT {COLUMNS} FROM images AS i WHERE i.source = :source "  # noqa: S608 - our own columns
            "AND i.id = ANY(:ids) ORDER BY i.id"
        ).bindparams(sa.bindparam("ids", list(image_ids), BIGINT), source=self.source)
        return self.images(statement)

    def same_size(
        self, kind: Kind, sizes: Sequence[int], *, most: int = 5
    ) -> dict[int, tuple[Content, ...]]:
        """The newest few contents of each size in bytes: a new upload may have the same content."""
        statement = SAME_SIZE.bindparams(
            sa.bindparam("sizes", sorted(set(sizes)), BIGINT),
            source=self.source,
            kind=kind,
            most=most,
        )
        found: dict[int, tuple[Content, ...]] = {}
        for image in self.images(statement):
            if image.content is not None and image.size is not None:
                found[image.size] = (*found.get(image.size, ()), image.content)
        return found

    def by_content(self, kind: Kind, sha256: str) -> Image | None:
        """The first ready image with exactly these bytes."""
        statement = sa.text(
            f"SELECT {COLUMNS} FROM images AS i WHERE i.sha256 = :sha256 "  # noqa: S608 - our own columns
            "AND i.source = :source AND i.kind = :kind AND i.state = 'ready' "
            "AND i.processed = i.announced ORDER BY i.id LIMIT 1"
        ).bindparams(source=self.source, kind=kind, sha256=sha256)
        return next(iter(self.images(statement)), None)

    def page(
        self,
        *,
        limit: int,
        after_id: int = 0,
        kind: Kind | None = None,
        state: State | None = None,
        prefix: str | None = None,
        media_type: str | None = None,
        in_partitions: bool | None = None,
    ) -> list[Image]:
        """Rows in ascending order of id, which is stable while rows are added.

        Deleted images are listed only if `state` asks for them.
        """
        if not (is_storable(prefix or "") and is_storable(media_type or "")):
            return []
        i = ROWS
        query = sa.select(i).where(i.c.source == self.source, i.c.id > after_id)
        query = query.where(i.c.state == state) if state else query.where(i.c.state != "deleted")
        if kind:
            query = query.where(i.c.kind == kind)
        if prefix:
            query = query.where(i.c.key.startswith(prefix, autoescape=True))
        if media_type:
            query = query.where(i.c.media_type == media_type)
        if in_partitions is not None:
            query = query.where(i.c.in_partitions if in_partitions else ~i.c.in_partitions)
        return self.images(query.order_by(i.c.id).limit(limit))

    def counts(self) -> list[Count]:
        """Number of images by kind and state."""
        i = images
        query = (
            sa.select(i.c.kind, i.c.state, sa.func.count())
            .where(i.c.source == self.source)
            .group_by(i.c.kind, i.c.state)
            .order_by(i.c.kind, i.c.state)
        )
        rows = self.transaction(lambda connection: connection.execute(query).all())
        return [Count(kind, state, count) for kind, state, count in rows]

    def reasons(self) -> dict[str, int]:
        """Number of rejected or delayed images by reason code."""
        query = (
            sa.select(images.c.reason_code, sa.func.count())
            .where(images.c.source == self.source, images.c.state.in_(("pending", "rejected")))
            .where(images.c.reason_code.is_not(None))
            .group_by(images.c.reason_code)
            .order_by(images.c.reason_code)
        )
        rows = self.transaction(lambda connection: connection.execute(query).all())
        return {row[0]: row[1] for row in rows}

    def failing(self) -> list[Failing]:
        """Images that wait because they failed, the most frequent reason first."""
        statement = FAILING.bindparams(
            sa.bindparam("troubles", list(TROUBLE_CODES), TEXT), source=self.source
        )
        rows = self.transaction(lambda connection: connection.execute(statement).mappings().all())
        return [Failing(**row) for row in rows]

    def failed(self) -> list[Image]:
        """All images that wait because they failed."""
        statement = sa.text(
            f"SELECT {COLUMNS} FROM images AS i WHERE {FAILED} ORDER BY i.id"  # noqa: S608 - our own columns
        ).bindparams(sa.bindparam("troubles", list(TROUBLE_CODES), TEXT), source=self.source)
        return self.images(statement)

    def oldest_pending(self) -> datetime | None:
        """When the image that has waited longest was announced; None if nothing waits."""
        query = sa.select(sa.func.min(images.c.updated_at)).where(
            images.c.source == self.source, images.c.state == "pending"
        )
        return self.transaction(lambda connection: connection.execute(query).scalar())


# Rows as people browse them: newest first, filtered by what they type.


class Browsing(Connected):
    """Pages of rows by when they were created: an image was first seen, or seen after erasure."""

    def browse(
        self,
        *,
        limit: int,
        before_id: int | None = None,
        after_id: int | None = None,
        kind: Kind | None = None,
        state: State | None = None,
        containing: str = "",
    ) -> list[Image]:
        """Rows in descending order of id; a page does not change while rows are added.

        Args:
            limit: Maximum number of rows.
            before_id: Only rows with a smaller id, those that follow on a page.
            after_id: Only rows with a larger id, and of those the nearest.
            kind: Only this kind.
            state: Only this state; deleted images are listed only if this asks for them.
            containing: Only keys that contain this text, ignoring case. This may read every row.
        """
        if not is_storable(containing):
            return []
        i = ROWS
        query = sa.select(i).where(i.c.source == self.source)
        query = query.where(i.c.state == state) if state else query.where(i.c.state != "deleted")
        if before_id is not None:
            query = query.where(i.c.id < before_id)
        if after_id is not None:
            query = query.where(i.c.id > after_id)
        if kind:
            query = query.where(i.c.kind == kind)
        if containing:
            query = query.where(i.c.key.icontains(containing, autoescape=True))
        order = i.c.id.desc() if after_id is None else i.c.id.asc()
        found = self.images(query.order_by(order).limit(limit))
        return found if after_id is None else found[::-1]
