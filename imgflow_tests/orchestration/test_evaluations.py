"""Evaluations of asset checks in bulk: as Dagster stores them one by one, and in few statements."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from imgflow.catalog.partition_keys import partition_key
from imgflow.orchestration.assets import asset_definitions
from imgflow.orchestration.checks import asset_checks
from imgflow.orchestration.dagster_storage.event_log import BulkPostgresEventLogStorage
from imgflow_tests.orchestration.project import Project
from imgflow_tests.orchestration.test_way import put
from imgflow_tests.pictures import jpeg

# What tells one run from another.
OWN = ("run_id", "timestamp", "pid", "logging_tags", "user_message")


def stored(project: Project, run_id: str) -> list[tuple[Any, ...]]:
    """Rows of the table of checks, each with its event and the log's copy of it."""
    with project.catalog.engine.connect() as connection:
        rows = connection.execute(
            sa.text(
                "SELECT c.asset_key, c.check_name, c.partition, c.execution_status,"
                " c.materialization_event_storage_id, c.evaluation_event, e.event,"
                " e.dagster_event_type, e.step_key, e.asset_key, e.partition,"
                " c.evaluation_event_timestamp = e.timestamp"
                " FROM asset_check_executions c"
                " LEFT JOIN event_logs e ON e.id = c.evaluation_event_storage_id"
                " WHERE c.run_id = :run_id ORDER BY c.id"
            ),
            {"run_id": run_id},
        )
        return [tuple(_told(value) for value in row) for row in rows]


def _told(value: Any) -> Any:
    """A value; of an event what does not differ between runs."""
    if not isinstance(value, str) or not value.startswith("{"):
        return value

    def without_own(found: dict[str, Any]) -> dict[str, Any]:
        return {name: part for name, part in found.items() if name not in OWN}

    return json.loads(value, object_hook=without_own)


def test_they_are_what_dagster_stores_one_by_one(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "it's \\ a\tkey.jpg"
    put(project, key, jpeg())
    (first,) = project.run_requests(project.tick())
    bulk = stored(project, first.run_id)
    monkeypatch.setattr(BulkPostgresEventLogStorage, "are_planned", lambda *_: True)
    second = project.materialize([partition_key(key)], force=True)
    assert second.success
    one_by_one = stored(project, second.run_id)
    assert len(bulk) == 5
    assert bulk == one_by_one


def test_a_sample_takes_few_statements_after_the_images_are_ready(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements: list[str] = []
    seen: dict[str, Any] = {}
    examine: Callable[..., None] = asset_checks.examine_sample

    def watched(*arguments: Any) -> None:
        seen["statuses"] = project.statuses("photo/thumbnail")
        before = len(statements)
        examine(*arguments)
        seen["statements"] = len(statements) - before

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    monkeypatch.setattr(asset_definitions, "examine_sample", watched)
    keys = [f"{number}.jpg" for number in range(3)]
    for number, key in enumerate(keys):
        put(project, key, jpeg(seed=number))
    tick = project.tick()
    sa.event.listen(Engine, "before_cursor_execute", note)
    try:
        (run,) = project.run_requests(tick)
    finally:
        sa.event.remove(Engine, "before_cursor_execute", note)
    assert run.success
    assert seen["statuses"] == dict.fromkeys(keys, "green"), "before anything is examined"
    assert 0 < seen["statements"] <= 8
