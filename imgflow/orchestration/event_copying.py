"""Statements that put many events at once into the tables of Dagster's event log.

They know the columns; the names of the tables are Dagster's own, which `event_log` has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import dagster as dg
import sqlalchemy as sa

from imgflow.catalog.text_copy import copy_rows
from imgflow.orchestration.dagster_storage.event_rows import Row


class NewEvent(NamedTuple):
    """An event that is about to be stored.

    Attributes:
        id: reserved for it.
        row: its columns.
        tags: those that Dagster indexes.
        entry: makes Dagster's object of it.
    """

    id: int
    row: Row
    tags: Mapping[str, str]
    entry: Callable[[], Any]


class NewEvaluation(NamedTuple):
    """An evaluation of an asset check that is about to be stored.

    Attributes:
        event_id: reserved for its event.
        run_id: of the run whose step reports it.
        evaluation: what was found.
        row: columns of its event.
        text: its event, serialised.
    """

    event_id: int
    run_id: str
    evaluation: dg.AssetCheckEvaluation
    row: Mapping[str, Any]
    text: str


def reserved_ids(connection: sa.Connection, count: int) -> list[int]:
    """Reserve so many ids of new events, rising."""
    rows = connection.exec_driver_sql(
        "SELECT nextval(pg_get_serial_sequence('event_logs', 'id')) FROM generate_series(1, %s)",
        (count,),
    )
    return [int(row[0]) for row in rows]


def copy_events(
    connection: sa.Connection, events: Sequence[NewEvent], log_table: str, tags_table: str
) -> None:
    """Copy events and their indexed tags, in the transaction of the connection."""
    copy_rows(
        connection,
        log_table,
        ("id", *events[0].row),
        ((event.id, *event.row.values()) for event in events),
    )
    copy_rows(
        connection,
        tags_table,
        ("event_id", "asset_key", "key", "value", "event_timestamp"),
        (
            (event.id, event.row["asset_key"], key, value, event.row["timestamp"])
            for event in events
            for key, value in event.tags.items()
        ),
    )


def newest(events: Sequence[NewEvent]) -> list[NewEvent]:
    """The last event of each asset and kind.

    In the order of their keys, so that two runs that write them never wait for each other.
    """
    last = {(event.row["asset_key"], event.row["dagster_event_type"]): event for event in events}
    return [event for _, event in sorted(last.items(), key=lambda item: item[0])]


def copy_evaluations(
    connection: sa.Connection,
    evaluations: Sequence[NewEvaluation],
    log_table: str,
    checks_table: str,
) -> None:
    """Copy evaluations of asset checks and their events, in the transaction of the connection."""
    copy_rows(
        connection,
        log_table,
        ("id", *evaluations[0].row),
        ((one.event_id, *one.row.values()) for one in evaluations),
    )
    copy_rows(
        connection,
        checks_table,
        (
            *("asset_key", "check_name", "partition", "run_id", "execution_status"),
            *("evaluation_event", "evaluation_event_timestamp"),
            "evaluation_event_storage_id",
        ),
        (
            (
                one.evaluation.asset_key.to_string(),
                one.evaluation.check_name,
                one.evaluation.partition,
                one.run_id,
                "SUCCEEDED" if one.evaluation.passed else "FAILED",
                one.text,
                one.row["timestamp"],
                one.event_id,
            )
            for one in evaluations
        ),
    )
