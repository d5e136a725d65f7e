"""The catalogue in PostgreSQL: one statement a page, one statement a batch, whatever their size.

Rows travel as arrays (`unnest`), so that a statement's text, and with it SQLAlchemy's compiled form
and the server's plan, is the same for one row and for a thousand.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from typing import Any, TypeVar

import sqlalchemy as sa

from imgflow.catalog import announcing, schema
from imgflow.catalog.announcing import Comparing
from imgflow.catalog.connecting import outages_in_words, retried
from imgflow.catalog.holds import Holds
from imgflow.catalog.rows import (
    Announcement,
    Content,
    Count,
    Image,
    Kind,
    State,
    Verdict,
    image_of,
    kind_of,
)
from imgflow.catalog.tables import COLUMNS, images
from imgflow.errors import Trouble
from imgflow.store.objects import SourceObject, is_text

Answer = TypeVar("Answer")

# A verdict on an upload that was overwritten in the meantime leaves the row pending; one that comes
# after the verdict on the newer upload is dropped.
RECORD = sa.text(
    """
    UPDATE images AS i SET
        state = CASE WHEN i.announced = v.identity THEN v.state ELSE 'pending' END,
        reason = v.reason, reason_code = v.reason_code,
        etag = v.etag, version_id = v.version_id, size = v.size, last_modified = v.last_modified,
        sha256 = v.sha256, media_type = v.media_type, width = v.width, height = v.height,
        mode = v.mode, recipe = v.recipe, outputs = v.outputs::jsonb, facts = v.facts::jsonb,
        processed = v.identity, run_id = v.run_id, in_partitions = true, batch = NULL,
        attempts = 0, not_before = NULL, unreported = false, updated_at = now()
    FROM unnest(
        :ids, :identities, :states, :reasons, :codes, :etags, :versions, :sizes, :modified, :hashes,
        :media_types, :widths, :heights, :modes, :recipes, :outputs, :facts, :run_ids
    ) AS v(
        id, identity, state, reason, reason_code, etag, version_id, size, last_modified, sha256,
        media_type, width, height, mode, recipe, outputs, facts, run_id
    )
    WHERE i.id = v.id AND i.state <> 'deleted'
        AND (i.announced = v.identity OR i.processed IS DISTINCT FROM i.announced)
    RETURNING i.id
    """
)

# The array that a row named until now goes with the change; one that another worker is about to
# name stays. No row is locked `FOR UPDATE` here or below: that waits for the worker that writes the
# image's array, maybe for minutes, since chunks refer to their row.
ARRAYS = sa.text(
    """
    SELECT id, outputs -> 'resized' ->> 'name' FROM images
    WHERE id = ANY(:ids) AND outputs -> 'resized' IS NOT NULL ORDER BY id
    FOR NO KEY UPDATE
    """
)
DROP_SUPERSEDED = sa.text(
    """
    DELETE FROM depth_chunks USING images AS i
    WHERE image_id = :id AND "array" = :array AND i.id = :id
        AND i.outputs -> 'resized' ->> 'name' IS DISTINCT FROM :array
    """
)

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
# The run has given the image up: it is in nobody's hands.
NOTE_TROUBLE = sa.text(
    """
    UPDATE images AS i SET reason = t.reason, reason_code = :code, batch = NULL,
        not_before = now() + least(power(2, least(attempts, 10)), 600) * interval '1 second'
    FROM unnest(:ids, :reasons) AS t(id, reason) WHERE i.id = t.id AND i.state = 'pending'
    """
)
TOMBSTONE = sa.text(
    """
    WITH old AS (
        SELECT id, state, outputs FROM images WHERE id = ANY(:ids) ORDER BY id FOR NO KEY UPDATE
    ), chunks AS (DELETE FROM depth_chunks WHERE image_id = ANY(:ids))
    UPDATE images AS i SET state = 'deleted', outputs = '{}', reason = NULL, reason_code = NULL,
        gone_at = CASE WHEN :is_gone THEN coalesce(i.gone_at, now()) ELSE i.gone_at END,
        batch = NULL, attempts = 0, not_before = NULL, unreported = false, updated_at = now()
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

SAME_SIZE = sa.text(
    f"""
    SELECT {COLUMNS} FROM unnest(:sizes) AS wanted(size) CROSS JOIN LATERAL (
        SELECT * FROM images WHERE source = :source AND size = wanted.size
            AND state = 'ready' AND kind = :kind
        ORDER BY id DESC LIMIT :most
    ) AS i
    """  # noqa: S608 - column names of our own table
)

TEXT, BIGINT, INT = sa.ARRAY(sa.Text), sa.ARRAY(sa.BigInteger), sa.ARRAY(sa.Integer)
TIME = sa.ARRAY(sa.DateTime(timezone=True))


class PostgresCatalog:
    """The images of one source in a PostgreSQL database."""

    def __init__(self, engine: sa.Engine, source: str) -> None:
        """Take an engine and the canonical URL of the source; nothing is asked yet."""
        self.engine = engine
        self.source = source
        self.holds = Holds(engine, source)

    def migrate(self) -> None:
        """Bring the schema to this version."""
        retried(self.engine, lambda: schema.migrate(self.engine))

    def check(self) -> None:
        """Raise `Trouble` unless the database answers."""
        self._transaction(lambda connection: connection.execute(sa.text("SELECT 1")))

    def announce(self, uploads: Sequence[SourceObject]) -> Announcement:
        """Record what a listing shows: new and changed uploads become pending.

        Known ones stay untouched. Of several with the same key the last one counts.
        """
        return self._transaction(lambda on: announcing.announce(on, self.source, uploads))

    @contextmanager
    def comparing(self) -> Iterator[Comparing]:
        """Compare pages of a listing with what is known, all on one connection."""
        with closing(Comparing(self.engine, self.source)) as comparing:
            yield comparing

    def record(self, verdicts: Sequence[Verdict]) -> set[int]:
        """Write what became of a batch of uploads.

        Returns:
            The ids of the rows that took their verdict. Images that were deleted meanwhile, or
            whose newer upload has a verdict already, stay as they are.
        """
        if not verdicts:
            return set()
        uploads = [v.upload for v in verdicts]
        statement = RECORD.bindparams(
            sa.bindparam("ids", [v.image_id for v in verdicts], BIGINT),
            sa.bindparam("identities", [u.identity for u in uploads], TEXT),
            sa.bindparam("states", [v.state for v in verdicts], TEXT),
            sa.bindparam("reasons", [_text(v.reason) for v in verdicts], TEXT),
            sa.bindparam("codes", [v.reason_code for v in verdicts], TEXT),
            sa.bindparam("etags", [u.etag for u in uploads], TEXT),
            sa.bindparam("versions", [u.version_id for u in uploads], TEXT),
            sa.bindparam("sizes", [u.size for u in uploads], BIGINT),
            sa.bindparam("modified", [u.last_modified for u in uploads], TIME),
            sa.bindparam("hashes", [v.sha256 for v in verdicts], TEXT),
            sa.bindparam("media_types", [v.media_type for v in verdicts], TEXT),
            sa.bindparam("widths", [v.width for v in verdicts], INT),
            sa.bindparam("heights", [v.height for v in verdicts], INT),
            sa.bindparam("modes", [_text(v.mode) for v in verdicts], TEXT),
            sa.bindparam("recipes", [v.recipe for v in verdicts], TEXT),
            sa.bindparam("outputs", [_json(v.outputs) for v in verdicts], TEXT),
            sa.bindparam("facts", [_json(v.facts) for v in verdicts], TEXT),
            sa.bindparam("run_ids", [v.run_id for v in verdicts], TEXT),
        )
        depth = [v.image_id for v in verdicts if kind_of(v.upload.key) == "depth"]

        def work(connection: sa.Connection) -> set[int]:
            before = connection.execute(ARRAYS, {"ids": depth}).all() if depth else []
            recorded = {row.id for row in connection.execute(statement)}
            for image_id, array in before:
                connection.execute(DROP_SUPERSEDED, {"id": image_id, "array": array})
            return recorded

        return self._transaction(work)

    def reported(self, image_ids: Sequence[int]) -> None:
        """Note that Dagster knows of these images what their rows say."""
        statement = sa.text(
            "UPDATE images SET unreported = false, batch = NULL, attempts = 0, not_before = NULL "
            "WHERE id = ANY(:ids) AND state = 'ready' AND unreported"
        ).bindparams(sa.bindparam("ids", list(image_ids), BIGINT))
        self._transaction(lambda connection: connection.execute(statement))

    def note_trouble(self, troubles: dict[int, str], *, code: str = Trouble.code) -> None:
        """Keep what last kept pending images from being processed, for operators to see.

        Args:
            troubles: id to reason.
            code: of `Trouble` or one of its kinds.
        """
        if not troubles:
            return
        statement = NOTE_TROUBLE.bindparams(
            sa.bindparam("ids", list(troubles), BIGINT),
            sa.bindparam("reasons", [_text(reason) for reason in troubles.values()], TEXT),
            code=code,
        )
        self._transaction(lambda connection: connection.execute(statement))

    def waiting(self, kind: Kind, *, active: Sequence[str], most: int) -> list[Image]:
        """Images that are pending or unreported, in no active batch, and due; oldest first."""
        statement = WAITING.bindparams(
            sa.bindparam("active", list(active), TEXT), source=self.source, kind=kind, most=most
        )
        return self._images(statement)

    def untouchable(self, kind: Kind, *, active: Sequence[str]) -> list[str]:
        """Keys that no further run may cover: rejected images, and those in the hands of a run."""
        statement = sa.text(
            "SELECT key FROM images WHERE source = :source AND kind = :kind "
            "AND state = 'rejected' AND in_partitions "
            "UNION ALL SELECT key FROM images WHERE source = :source AND kind = :kind "
            "AND (state = 'pending' OR unreported) "
            "AND (batch = ANY(:active) OR batch IS NOT NULL AND not_before > now())"
        ).bindparams(sa.bindparam("active", list(active), TEXT), source=self.source, kind=kind)
        rows = self._transaction(lambda connection: connection.execute(statement).all())
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
        rows = self._transaction(lambda connection: connection.execute(statement).all())
        return [row.id for row in rows]

    def reopen(self, image_ids: Sequence[int]) -> None:
        """Make images pending again, since someone asked for it."""
        statement = sa.text(
            "UPDATE images SET state = 'pending', batch = NULL, attempts = 0, not_before = NULL, "
            "updated_at = now() WHERE id = ANY(:ids) AND state <> 'deleted'"
        ).bindparams(sa.bindparam("ids", list(image_ids), BIGINT))
        self._transaction(lambda connection: connection.execute(statement))

    def forget_uploads(self, keys: Sequence[str]) -> None:
        """Take back announcements of uploads that were deleted before they were read.

        An image that was processed before stays as it was then; any other counts as deleted.
        """
        statement = sa.text(
            """
            UPDATE images SET state = CASE WHEN outputs = '{}' THEN 'deleted' ELSE 'ready' END,
                gone_at = now(),
                announced = coalesce(processed, announced),
                announced_etag = coalesce(etag, announced_etag),
                announced_version_id = version_id,
                announced_size = coalesce(size, announced_size),
                announced_last_modified = coalesce(last_modified, announced_last_modified),
                batch = NULL, attempts = 0, not_before = NULL, updated_at = now()
            WHERE source = :source AND key = ANY(:keys) AND state = 'pending'
            """
        ).bindparams(sa.bindparam("keys", list(keys), TEXT), source=self.source)
        self._transaction(lambda connection: connection.execute(statement))

    def vanished(self, after: str | None, until: str | None, keys: Sequence[str]) -> list[Image]:
        """Images that a page of a listing should have shown and did not.

        Args:
            after: where the page began; None for the very beginning.
            until: its last key; None when the listing ended with it.
            keys: that it showed.
        """
        return self._transaction(
            lambda on: announcing.vanished(on, self.source, after, until, keys)
        )

    def mark_gone(self, image_ids: Sequence[int]) -> None:
        """Note that the objects of these images are gone; the images stay as they are."""
        statement = sa.text("UPDATE images SET gone_at = now() WHERE id = ANY(:ids)").bindparams(
            sa.bindparam("ids", list(image_ids), BIGINT)
        )
        self._transaction(lambda connection: connection.execute(statement))

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
        rows = self._transaction(lambda connection: connection.execute(statement).all())
        return {row.id: row.outputs for row in rows if row.state != "deleted"}

    @contextmanager
    def held_deleted(self, image_ids: Sequence[int]) -> Iterator[set[int]]:
        """Keep deleted images from coming back while the block lasts, and yield their ids.

        Arrays that a worker has written for them go. Whoever announces a new upload of one waits.
        """
        with outages_in_words(self.engine), self.engine.begin() as connection:
            yield {row.id for row in connection.execute(HOLD_DELETED, {"ids": list(image_ids)})}

    def entering(self, image_ids: Sequence[int]) -> None:
        """Note that partitions are about to be added for these images.

        Before they are: one that is deleted in between is then among those that leave.
        """
        statement = sa.text(
            "UPDATE images SET in_partitions = true WHERE id = ANY(:ids) AND NOT in_partitions"
        ).bindparams(sa.bindparam("ids", list(image_ids), BIGINT))
        self._transaction(lambda connection: connection.execute(statement))

    def leaving(self, kind: Kind, *, most: int) -> list[str]:
        """Keys of deleted images that still have a partition."""
        statement = sa.text(
            "SELECT key FROM images WHERE source = :source AND kind = :kind "
            "AND state = 'deleted' AND in_partitions ORDER BY id LIMIT :most"
        ).bindparams(source=self.source, kind=kind, most=most)
        rows = self._transaction(lambda connection: connection.execute(statement).all())
        return [row.key for row in rows]

    def has_leaving(self) -> bool:
        """Whether a deleted image still has a partition."""
        query = sa.text(
            "SELECT EXISTS (SELECT FROM images WHERE source = :source AND state = 'deleted' "
            "AND in_partitions)"
        ).bindparams(source=self.source)
        return bool(self._transaction(lambda connection: connection.execute(query).scalar()))

    def left(self, keys: Sequence[str]) -> None:
        """Note that these deleted images have no partition any more."""
        statement = sa.text(
            "UPDATE images SET in_partitions = false "
            "WHERE source = :source AND key = ANY(:keys) AND state = 'deleted'"
        ).bindparams(sa.bindparam("keys", list(keys), TEXT), source=self.source)
        self._transaction(lambda connection: connection.execute(statement))

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
        rows = self._transaction(lambda connection: connection.execute(statement).all())
        return [row.key for row in rows]

    def seal(self, keys: Sequence[str]) -> None:
        """Note that these images are settled and need no partition."""
        statement = sa.text(
            "UPDATE images SET in_partitions = false WHERE source = :source AND key = ANY(:keys) "
            "AND state IN ('ready', 'rejected') AND NOT unreported"
        ).bindparams(sa.bindparam("keys", list(keys), TEXT), source=self.source)
        self._transaction(lambda connection: connection.execute(statement))

    def unreport(self, image_ids: Sequence[int]) -> None:
        """Note that Dagster does not say of these ready images what their rows do."""
        statement = sa.text(
            "UPDATE images SET unreported = true, batch = NULL, not_before = NULL "
            "WHERE id = ANY(:ids) AND state = 'ready'"
        ).bindparams(sa.bindparam("ids", list(image_ids), BIGINT))
        self._transaction(lambda connection: connection.execute(statement))

    def erase_left(self) -> int:
        """Delete the rows of deleted images that have no partition any more; return how many."""
        statement = sa.text(
            "DELETE FROM images WHERE source = :source AND state = 'deleted' AND NOT in_partitions"
        ).bindparams(source=self.source)
        return self._transaction(lambda connection: connection.execute(statement).rowcount)

    def reopen_stale(self, kind: Kind, fingerprints: Mapping[str, str]) -> int:
        """Make images pending that lack an output, or have one made with another recipe.

        Args:
            kind: of images.
            fingerprints: of the recipe of each output that is enabled.

        Returns:
            How many.
        """
        i = images
        stale = sa.or_(
            *(
                i.c.outputs[name]["fingerprint"].astext.is_distinct_from(fingerprint)
                for name, fingerprint in fingerprints.items()
            )
        )
        statement = (
            sa.update(i)
            .where(i.c.source == self.source, i.c.kind == kind, i.c.state == "ready")
            .where(i.c.gone_at.is_(None), stale)
            .values(
                state="pending", batch=None, attempts=0, not_before=None, updated_at=sa.func.now()
            )
        )
        return self._transaction(lambda connection: connection.execute(statement).rowcount)

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
        self._transaction(lambda connection: connection.execute(statement))

    def same_size(
        self, kind: Kind, sizes: Sequence[int], *, most: int = 5
    ) -> dict[int, tuple[Content, ...]]:
        """Contents of these sizes in bytes, the newest few of each: what a new upload may equal."""
        statement = SAME_SIZE.bindparams(
            sa.bindparam("sizes", sorted(set(sizes)), BIGINT),
            source=self.source,
            kind=kind,
            most=most,
        )
        found: dict[int, tuple[Content, ...]] = {}
        for image in self._images(statement):
            if image.content is not None and image.size is not None:
                found[image.size] = (*found.get(image.size, ()), image.content)
        return found

    def by_keys(self, keys: Sequence[str]) -> dict[str, Image]:
        """Rows of these keys, by key."""
        statement = sa.text(
            f"SELECT {COLUMNS} FROM images AS i WHERE i.source = :source AND i.key = ANY(:keys)"  # noqa: S608
        ).bindparams(
            sa.bindparam("keys", [key for key in keys if _is_storable(key)], TEXT),
            source=self.source,
        )
        return {image.key: image for image in self._images(statement)}

    def by_id(self, image_id: int) -> Image | None:
        """One row."""
        if not 0 < image_id < 2**63:
            return None  # ids come from outside, and the database refuses to compare such a one
        statement = sa.text(
            f"SELECT {COLUMNS} FROM images AS i WHERE i.source = :source AND i.id = :id"  # noqa: S608
        ).bindparams(source=self.source, id=image_id)
        return next(iter(self._images(statement)), None)

    def by_ids(self, image_ids: Sequence[int]) -> list[Image]:
        """Rows of these ids in ascending order of id."""
        statement = sa.text(
            f"SELECT {COLUMNS} FROM images AS i WHERE i.source = :source "  # noqa: S608
            "AND i.id = ANY(:ids) ORDER BY i.id"
        ).bindparams(sa.bindparam("ids", list(image_ids), BIGINT), source=self.source)
        return self._images(statement)

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
        """Rows in ascending order of id, which stays stable while rows are added.

        Deleted images are listed only when asked for by their state.
        """
        if not (_is_storable(prefix or "") and _is_storable(media_type or "")):
            return []
        i = images.alias("i")
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
        return self._images(query.order_by(i.c.id).limit(limit))

    def counts(self) -> list[Count]:
        """How many images of each kind are in each state."""
        i = images
        query = (
            sa.select(i.c.kind, i.c.state, sa.func.count())
            .where(i.c.source == self.source)
            .group_by(i.c.kind, i.c.state)
            .order_by(i.c.kind, i.c.state)
        )
        rows = self._transaction(lambda connection: connection.execute(query).all())
        return [Count(kind, state, count) for kind, state, count in rows]

    def reasons(self) -> dict[str, int]:
        """How many images are rejected or kept waiting, by the code of the reason."""
        query = (
            sa.select(images.c.reason_code, sa.func.count())
            .where(images.c.source == self.source, images.c.state.in_(("pending", "rejected")))
            .where(images.c.reason_code.is_not(None))
            .group_by(images.c.reason_code)
            .order_by(images.c.reason_code)
        )
        rows = self._transaction(lambda connection: connection.execute(query).all())
        return {row[0]: row[1] for row in rows}

    def is_due_soon(self, seconds: float) -> bool:
        """Whether an image waits that a run had in hand and left, and whose pause ends so soon.

        Or has ended, maybe since the caller last asked for what waits.
        Images in trouble do not count: what keeps them may last.
        """
        query = sa.text(
            "SELECT EXISTS (SELECT FROM images WHERE source = :source "
            "AND (state = 'pending' OR unreported) "
            "AND coalesce(reason_code, '') NOT IN ('trouble', 'unreadable') "
            "AND not_before <= now() + :seconds * interval '1 second')"
        ).bindparams(source=self.source, seconds=seconds)
        return bool(self._transaction(lambda connection: connection.execute(query).scalar()))

    def has_requests(self) -> bool:
        """Whether images were asked for so lately that Dagster may not know the run yet."""
        query = sa.text(
            "SELECT EXISTS (SELECT FROM images WHERE source = :source "
            "AND (state = 'pending' OR unreported) AND batch IS NOT NULL AND not_before > now())"
        ).bindparams(source=self.source)
        return bool(self._transaction(lambda connection: connection.execute(query).scalar()))

    def oldest_pending(self) -> datetime | None:
        """When the image that has waited longest was announced; None when nothing waits."""
        query = sa.select(sa.func.min(images.c.updated_at)).where(
            images.c.source == self.source, images.c.state == "pending"
        )
        return self._transaction(lambda connection: connection.execute(query).scalar())

    def _images(self, statement: sa.Executable) -> list[Image]:
        rows = self._transaction(lambda connection: connection.execute(statement).mappings().all())
        return [image_of(row) for row in rows]

    def _transaction(self, work: Callable[[sa.Connection], Answer]) -> Answer:
        def attempt() -> Answer:
            with self.engine.begin() as connection:
                return work(connection)

        return retried(self.engine, attempt)


def _is_storable(text: str) -> bool:
    """Whether PostgreSQL can hold a text at all; it refuses even to compare with others."""
    return "\0" not in text and is_text(text)


def _text(text: str | None) -> str | None:
    """A text that PostgreSQL takes: names and tags inside an image may hold anything."""
    if text is None or _is_storable(text):
        return text
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _json(value: Any) -> str:
    return json.dumps(_storable(value), allow_nan=False)


def _storable(value: Any) -> Any:
    """JSON without NUL, lone surrogates, NaN and infinity, any of which fails the whole batch."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_text(name): _storable(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_storable(part) for part in value]
    return value
