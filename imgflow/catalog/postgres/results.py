"""Recording results: the outcomes of a batch in one statement, external errors, and reports.

The records themselves are in `catalog.records`.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from imgflow.catalog.database.engine import BIGINT, INT, TEXT, TIME, Connected
from imgflow.catalog.database.tables import storable_json, storable_text
from imgflow.catalog.records import Verdict, kind_of
from imgflow.errors import Trouble

# If an upload was overwritten in the meantime, its outcome leaves the row pending. If the newer
# upload has an outcome already, the older one's is dropped.
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
        AND coalesce(v.run_id, '') <> ALL(:over)
    RETURNING i.id
    """
)

# If a run's machine was cut off for so long that the run was given up, its images belong to other
# runs. The lock keeps it from being given up between this query and the commit.
RUNS = sa.text("SELECT run_id, ended_at FROM run_holds WHERE run_id = ANY(:run_ids) FOR SHARE")

# The array that a row named until now is deleted with the change; one that another worker is about
# to name stays. No row is locked `FOR UPDATE` here or below: since chunks refer to their row, that
# would wait for the worker that writes the image's array, maybe for minutes.
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

# The run has given the image up, so no run has it.
NOTE_TROUBLE = sa.text(
    """
    UPDATE images AS i SET reason = t.reason, reason_code = :code, batch = NULL,
        not_before = now() + least(power(2, least(attempts, 10)), 600) * interval '1 second'
    FROM unnest(:ids, :reasons) AS t(id, reason) WHERE i.id = t.id AND i.state = 'pending'
    """
)


class Recording(Connected):
    """Writes outcomes and external errors, and records what Dagster knows."""

    def record(self, verdicts: Sequence[Verdict]) -> set[int]:
        """Write the outcomes of a batch of uploads.

        Returns:
            The ids of the rows that took their outcome. Unchanged are images that were deleted
            meanwhile, whose newer upload has an outcome already, or whose run was given up.
        """
        if not verdicts:
            return set()
        uploads = [v.upload for v in verdicts]
        statement = RECORD.bindparams(
            sa.bindparam("ids", [v.image_id for v in verdicts], BIGINT),
            sa.bindparam("identities", [u.identity for u in uploads], TEXT),
            sa.bindparam("states", [v.state for v in verdicts], TEXT),
            sa.bindparam("reasons", [storable_text(v.reason) for v in verdicts], TEXT),
            sa.bindparam("codes", [v.reason_code for v in verdicts], TEXT),
            sa.bindparam("etags", [u.etag for u in uploads], TEXT),
            sa.bindparam("versions", [u.version_id for u in uploads], TEXT),
            sa.bindparam("sizes", [u.size for u in uploads], BIGINT),
            sa.bindparam("modified", [u.last_modified for u in uploads], TIME),
            sa.bindparam("hashes", [v.sha256 for v in verdicts], TEXT),
            sa.bindparam("media_types", [v.media_type for v in verdicts], TEXT),
            sa.bindparam("widths", [v.width for v in verdicts], INT),
            sa.bindparam("heights", [v.height for v in verdicts], INT),
            sa.bindparam("modes", [storable_text(v.mode) for v in verdicts], TEXT),
            sa.bindparam("recipes", [v.recipe for v in verdicts], TEXT),
            sa.bindparam("outputs", [storable_json(v.outputs) for v in verdicts], TEXT),
            sa.bindparam("facts", [storable_json(v.facts) for v in verdicts], TEXT),
            sa.bindparam("run_ids", [v.run_id or None for v in verdicts], TEXT),
        )
        runs = RUNS.bindparams(sa.bindparam("run_ids", sorted({v.run_id for v in verdicts}), TEXT))
        depth = [v.image_id for v in verdicts if kind_of(v.upload.key) == "depth"]

        def work(connection: sa.Connection) -> set[int]:
            over = [row.run_id for row in connection.execute(runs) if row.ended_at]
            before = connection.execute(ARRAYS, {"ids": depth}).all() if depth else []
            bound = statement.bindparams(sa.bindparam("over", over, TEXT))
            recorded = {row.id for row in connection.execute(bound)}
            for image_id, array in before:
                connection.execute(DROP_SUPERSEDED, {"id": image_id, "array": array})
            return recorded

        return self.transaction(work)

    def note_trouble(self, troubles: dict[int, str], *, code: str = Trouble.code) -> None:
        """Record for operators what kept pending images from being processed last time.

        `troubles` has reasons by image id; `code` is that of `Trouble` or one of its subclasses.
        """
        if not troubles:
            return
        statement = NOTE_TROUBLE.bindparams(
            sa.bindparam("ids", list(troubles), BIGINT),
            sa.bindparam("reasons", [storable_text(reason) for reason in troubles.values()], TEXT),
            code=code,
        )
        self.transaction(lambda connection: connection.execute(statement))

    def reported(self, image_ids: Sequence[int]) -> None:
        """Record that Dagster matches the rows of these images."""
        statement = sa.text(
            "UPDATE images SET unreported = false, batch = NULL, attempts = 0, not_before = NULL "
            "WHERE id = ANY(:ids) AND state = 'ready' AND unreported"
        ).bindparams(sa.bindparam("ids", list(image_ids), BIGINT))
        self.transaction(lambda connection: connection.execute(statement))
