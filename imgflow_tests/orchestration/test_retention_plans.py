"""The retention of a log of 160,000 events reads it through indexes, in short statements."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from imgflow.orchestration.upkeep.retention import clean_event_log
from imgflow_tests.orchestration.project import Project

IMAGES = 5_000
ASSETS = [f'["photo", "{name}"]' for name in ("source", "grayscale", "thumbnail", "metadata")]

# Four rounds of planned events and materialisations for each asset of each image; one image in a
# hundred failed in the last round.
FILL = """
INSERT INTO event_logs (run_id, event, dagster_event_type, timestamp, asset_key, partition)
SELECT 'run-' || round || '-' || image / 1000,
    '{"tags": {"dagster/input_event_pointer/photo/source": "1"}, "text": "' || repeat('x', 700)
        || '"}',
    type, timestamp '2020-01-01' + round * interval '1 day', asset,
    'photos/' || lpad(image::text, 6, '0') || '.jpg'
FROM generate_series(1, 4) AS round,
    unnest(ARRAY['ASSET_MATERIALIZATION_PLANNED', 'ASSET_MATERIALIZATION']) WITH ORDINALITY
        AS types (type, place),
    generate_series(1, :images) AS image, unnest(CAST(:assets AS text[])) AS asset
WHERE NOT (round = 4 AND type = 'ASSET_MATERIALIZATION' AND image % 100 = 0)
ORDER BY round, place, image
"""
TAGS = """
INSERT INTO asset_event_tags (event_id, asset_key, key, value, event_timestamp)
SELECT id, asset_key, 'dagster/data_version', 'v', timestamp FROM event_logs
WHERE dagster_event_type = 'ASSET_MATERIALIZATION'
"""
KEYS = """
INSERT INTO asset_keys (asset_key, last_run_id, last_materialization_timestamp)
SELECT asset, 'run-4-0', now() FROM unnest(CAST(:assets AS text[])) AS asset
"""


@pytest.fixture
def filled(project: Project) -> Project:
    project.instance.get_asset_keys()  # makes the tables
    engine = project.catalog.engine
    with engine.begin() as connection:
        for statement in (FILL, TAGS, KEYS):
            connection.execute(sa.text(statement), {"images": IMAGES, "assets": ASSETS})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("VACUUM ANALYZE event_logs, asset_event_tags, asset_keys"))
    return project


def test_no_statement_reads_the_whole_log(filled: Project) -> None:
    plans: list[str] = []

    def explain(connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        with connection.connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN {statement}", parameters)
            plans.append(statement + "\n" + "\n".join(row[0] for row in cursor))

    engine = filled.instance.event_log_storage._engine  # type: ignore[attr-defined]
    sa.event.listen(engine, "before_cursor_execute", explain)
    freed = clean_event_log(
        filled.instance,
        filled.families,
        jobs=[family.job for family in filled.families],
        older_than=datetime.now(UTC),
    )
    sa.event.remove(engine, "before_cursor_execute", explain)

    failed = IMAGES // 100
    assert freed.materialisations == 4 * (3 * IMAGES - failed)
    assert freed.planned_events == 4 * (4 * IMAGES - failed)
    whole = re.compile(r"Seq Scan on (event_logs|asset_event_tags)")
    assert not [plan for plan in plans if whole.search(plan)]
    assert len(plans) < 400, "statements for single partitions"
