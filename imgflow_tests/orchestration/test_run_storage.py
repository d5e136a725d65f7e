"""A long-lived process opens Dagster's instance again and again, and is no larger for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa

from imgflow.orchestration.dagster_storage.storages import ReflectOnceRunStorage, is_present


@pytest.fixture
def reflected() -> Iterator[list[str]]:
    """Statements that ask PostgreSQL for columns or one table, of whatever engine."""
    found: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "pg_attribute" in statement or "pg_class.relname = " in statement:
            found.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    yield found
    sa.event.remove(sa.Engine, "before_cursor_execute", note)


@dg.asset
def one() -> dg.MaterializeResult[None]:
    return dg.MaterializeResult(metadata={"rows": 1})


def what_a_tick_and_a_run_do(instance: dg.DagsterInstance) -> None:
    """With an instance of their own, as Dagster gives each of them one."""
    with dg.DagsterInstance.from_ref(instance.get_ref()) as own:
        dg.materialize([one], instance=own)
        assert own.get_run_records(dg.RunsFilter(), limit=1)[0].end_time
        assert own.get_latest_materialization_event(one.key)
        own.get_backfills(limit=1)


def test_the_storage_is_that_of_the_instance(instance: dg.DagsterInstance) -> None:
    assert isinstance(instance.run_storage, ReflectOnceRunStorage)


def test_columns_and_tables_are_asked_for_by_the_first_tick_only(
    instance: dg.DagsterInstance, reflected: list[str]
) -> None:
    what_a_tick_and_a_run_do(instance)
    assert reflected
    reflected.clear()
    what_a_tick_and_a_run_do(instance)
    assert not reflected


def test_what_a_migration_has_not_added_yet_is_asked_for_again() -> None:
    answers = iter([False, False, True])
    found = [is_present("postgresql://here", "a column", lambda: next(answers)) for _ in range(5)]
    assert found == [False, False, True, True, True]
    assert not is_present("postgresql://there", "a column", lambda: False)
