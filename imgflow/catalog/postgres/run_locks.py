"""Which runs process which images, by locks that the database drops when a process dies.

A run is entered before it touches anything, and marked as ended after its last event. If it has
neither ended nor a living process, Dagster may not know about some rows it has written. Those are
marked `unreported`, and the next run reports them again.

Choosing the images of a run is in `queue`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from imgflow.catalog.database.engine import BIGINT, TEXT, Connected, outages_in_words, retried
from imgflow.catalog.records import Kind

# Number of recent runs from which the current pace is computed. Short runs mostly measure how long
# workers take to start.
PACE_RUNS = 5
KEEP_DAYS = 30

# A lock is lost when the server restarts; its process takes it again.
RENEW_SECONDS = 2.0
SETTLE_SECONDS = 10

LOCK = sa.text("SELECT pg_advisory_lock_shared(hashtextextended(:batch, 0))")
TRY_LOCK = sa.text("SELECT pg_try_advisory_xact_lock(hashtextextended(:batch, 0))")
ASKING = sa.text("SELECT pg_advisory_xact_lock(hashtextextended('asking ' || :source, 0))")

BEGIN = sa.text(
    """
    INSERT INTO run_holds (run_id, source, kind, batch, image_ids)
    VALUES (:run_id, :source, :kind, :batch, :ids)
    ON CONFLICT (run_id) DO UPDATE SET
        image_ids = excluded.image_ids, began_at = now(), ended_at = NULL
    """
)
END = sa.text(
    """
    UPDATE run_holds SET ended_at = now(), image_ids = '{}', images = :images, bytes = :bytes
    WHERE run_id = :run_id
    """
)
# Right after the server restarts, living processes have not taken their locks again yet.
OPEN = sa.text(
    "SELECT run_id, batch, ended_at FROM run_holds "
    "WHERE source = :source AND ended_at IS NULL "
    "AND pg_postmaster_start_time() < now() - :settle * interval '1 second' ORDER BY began_at"
)
UNJUDGED = sa.text(
    "SELECT EXISTS (SELECT FROM run_holds WHERE source = :source AND ended_at IS NULL "
    "AND pg_postmaster_start_time() >= now() - :settle * interval '1 second')"
)
OF_RUNS = sa.text("SELECT run_id, batch, ended_at FROM run_holds WHERE run_id = ANY(:run_ids)")
# Only ready images: after a failed run, Dagster shows them as failed. Others did fail, or wait.
TAKE_UP = sa.text(
    """
    WITH left_behind AS (
        SELECT run_id, image_ids FROM run_holds
        WHERE run_id = ANY(:run_ids) AND ended_at IS NULL ORDER BY run_id FOR UPDATE
    ), over AS (
        UPDATE run_holds AS h SET ended_at = now(), image_ids = '{}'
        FROM left_behind AS l WHERE h.run_id = l.run_id
    ), ids AS (SELECT DISTINCT unnest(image_ids) AS id FROM left_behind ORDER BY 1)
    UPDATE images AS i SET unreported = true, not_before = NULL
    FROM ids WHERE i.id = ids.id AND i.state = 'ready' AND NOT i.unreported
    """
)
PACE = sa.text(
    """
    SELECT sum(images) AS images, sum(bytes) AS bytes,
        extract(epoch FROM sum(ended_at - began_at))::float AS seconds
    FROM (
        SELECT images, bytes, began_at, ended_at FROM run_holds
        WHERE source = :source AND kind = :kind AND images > 0 AND (
            ended_at - began_at > interval '30 seconds'
            OR ended_at - began_at > interval '5 seconds' AND images >= 20)
        ORDER BY ended_at DESC LIMIT :most
    ) AS newest
    """
)


@dataclass(frozen=True)
class Hold:
    """A run that has started processing; `ended_at` is None until its last event is stored."""

    run_id: str
    batch: str
    ended_at: datetime | None


@dataclass(frozen=True)
class Pace:
    """How fast images of one kind were processed recently; both rates are above zero."""

    images_per_second: float
    bytes_per_second: float

    def seconds(self, size: int) -> float:
        """Expected time for an image of `size` bytes.

        Half of it is by number of images and half by bytes: the cost of small images is mostly the
        same for each, that of large ones depends on their bytes.
        """
        return (1 / self.images_per_second + size / self.bytes_per_second) / 2


class Holds(Connected):
    """The run locks of one source."""

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Let one caller at a time decide which images to request runs for; others wait."""
        connection = retried(self.engine, self.engine.connect)
        try:
            with outages_in_words(self.engine):
                connection.execute(sa.text("SET LOCAL lock_timeout = '30s'"))
                connection.execute(ASKING, {"source": self.source})
            yield
        finally:
            connection.close()

    @contextmanager
    def holding(self, batch: str) -> Iterator[None]:
        """Show that this process works on a batch, for as long as it lives.

        The database drops the lock when the process dies, however that happens.
        """
        lock = _Lock(self.engine, batch)
        retried(self.engine, lock.take)
        is_over = threading.Event()

        def renew() -> None:
            while not is_over.wait(RENEW_SECONDS):
                with suppress(SQLAlchemyError):  # retried after `RENEW_SECONDS`
                    lock.renew()

        renewing = threading.Thread(target=renew, name=f"hold on {batch}", daemon=True)
        renewing.start()
        try:
            yield
        finally:
            is_over.set()
            renewing.join()
            lock.drop()

    def is_held(self, batch: str) -> bool:
        """Whether a living process works on a batch."""

        def work(connection: sa.Connection) -> bool:
            # Released at the end of this transaction.
            return not connection.execute(TRY_LOCK, {"batch": batch}).scalar()

        return self.transaction(work)

    def begin(self, run_id: str, batch: str, kind: Kind, image_ids: Sequence[int]) -> None:
        """Enter a run, which locks `batch`, before it changes or reports any of its images."""
        statement = BEGIN.bindparams(
            sa.bindparam("ids", list(image_ids), BIGINT),
            run_id=run_id,
            source=self.source,
            kind=kind,
            batch=batch,
        )
        self.transaction(lambda connection: connection.execute(statement))

    def end(self, run_id: str, *, images: int, size: int) -> None:
        """Record that everything about a run is reported.

        `images` is the number of images it processed, without those that needed no work; `size`,
        the total size of their uploads in bytes.
        """
        statement = END.bindparams(run_id=run_id, images=images, bytes=size)
        self.transaction(lambda connection: connection.execute(statement))

    def of_runs(self, run_ids: Sequence[str]) -> dict[str, Hold]:
        """What is recorded about these runs, by id."""
        statement = OF_RUNS.bindparams(
            sa.bindparam("run_ids", list(run_ids), TEXT),
        )
        rows = self.transaction(lambda connection: connection.execute(statement).all())
        return {row.run_id: Hold(*row) for row in rows}

    def abandoned(self) -> list[Hold]:
        """Runs that have neither ended nor a living process."""
        statement = OPEN.bindparams(source=self.source, settle=SETTLE_SECONDS)
        rows = self.transaction(lambda connection: connection.execute(statement).all())
        return [hold for row in rows if not self.is_held((hold := Hold(*row)).batch)]

    def is_settling(self) -> bool:
        """Whether the server restarted so recently that abandoned runs are not known yet."""
        statement = UNJUDGED.bindparams(source=self.source, settle=SETTLE_SECONDS)
        return bool(self.transaction(lambda connection: connection.execute(statement).scalar()))

    def take_up(self, run_ids: Sequence[str]) -> None:
        """Mark the ready images of abandoned runs as `unreported`, and the runs as ended.

        If one is still alive on a machine that was cut off, it can record nothing more.
        """
        if not run_ids:
            return
        statement = TAKE_UP.bindparams(
            sa.bindparam("run_ids", list(run_ids), TEXT),
        )
        self.transaction(lambda connection: connection.execute(statement))

    def pace(self, kind: Kind) -> Pace | None:
        """How fast images were processed in the most recent runs; None before the first."""
        statement = PACE.bindparams(source=self.source, kind=kind, most=PACE_RUNS)
        row = self.transaction(lambda connection: connection.execute(statement).one())
        if not row.images or not row.bytes or not row.seconds:
            return None
        return Pace(float(row.images) / row.seconds, float(row.bytes) / row.seconds)

    def forget(self) -> None:
        """Delete records of runs that ended more than `KEEP_DAYS` ago."""
        statement = sa.text(
            "DELETE FROM run_holds WHERE source = :source "
            "AND ended_at < now() - :days * interval '1 day'"
        ).bindparams(source=self.source, days=KEEP_DAYS)
        self.transaction(lambda connection: connection.execute(statement))


class _Lock:
    """A database lock that lives as long as its connection."""

    def __init__(self, engine: sa.Engine, batch: str) -> None:
        self._engine = engine
        self._batch = batch
        self._connection: sa.Connection | None = None

    def take(self) -> None:
        connection = self._engine.connect()
        try:
            connection.execute(LOCK, {"batch": self._batch})
            connection.commit()
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    def renew(self) -> None:
        """Take the lock again if the connection was lost."""
        if self._connection is None:
            self.take()
            return
        try:
            self._connection.exec_driver_sql("SELECT 1")
            self._connection.commit()
        except SQLAlchemyError:
            self.drop()
            self.take()

    def drop(self) -> None:
        if self._connection is None:
            return
        connection, self._connection = self._connection, None
        # Not returned to the pool, where the session would keep its lock.
        with suppress(SQLAlchemyError):
            connection.invalidate()
        connection.close()
