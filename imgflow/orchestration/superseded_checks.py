"""Which evaluations of asset checks decide nothing any more: the queries of the retention.

What Dagster reads for the status of a check, with 1.13.27: its newest execution, whatever its
partition; the newest that is not merely planned; and of each partition the newest. Those of runs
over images are five for each run, so they are what a check's history grows by.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import dagster as dg
import sqlalchemy as sa

from imgflow.orchestration.dagster_storage.event_log import AssetCheckExecutionsTable
from imgflow.orchestration.dagster_storage.queries import event_log_transaction
from imgflow.orchestration.dagster_storage.stale_events import EventLog

executions = AssetCheckExecutionsTable


class Evaluation(NamedTuple):
    """An execution of a check, and the event that it came with."""

    id: int
    event_id: int


def superseded_evaluations(log: EventLog, asset: dg.AssetKey) -> Iterator[list[Evaluation]]:
    """Executions of an asset's checks that a newer one superseded, page by page.

    Those superseded after the moment of the log count as needed.
    """
    needed = _needed(log, asset)
    after = 0
    while True:
        page = _fetch(
            log.instance,
            sa.select(executions.c.id, executions.c.evaluation_event_storage_id)
            .where(*_old(log, asset), executions.c.id > after)
            .where(executions.c.run_id.not_in(log.unfinished))
            .order_by(executions.c.id)
            .limit(log.page_events),
        )
        if not page:
            return
        yield [Evaluation(*row) for row in page if row.id not in needed]
        after = page[-1].id


def delete_evaluations(log: EventLog, page: Sequence[Evaluation]) -> list[int]:
    """Delete executions with their events, in one transaction; answers the bytes of each."""
    if not page:
        return []
    ids = sa.cast([one.id for one in page], sa.ARRAY(sa.BigInteger))
    with event_log_transaction(log.instance) as connection:
        deleted = connection.execute(
            sa.delete(executions)
            .where(executions.c.id == sa.any_(ids))
            .returning(sa.func.octet_length(executions.c.evaluation_event))
        )
        sizes = list(deleted.scalars())
        log.delete_with(connection, [one.event_id for one in page])
    return sizes


def runs_of_evaluations(instance: dg.DagsterInstance) -> set[str]:
    """Runs that the executions which are left lead to."""
    return {row.run_id for row in _fetch(instance, sa.select(executions.c.run_id).distinct())}


def _needed(log: EventLog, asset: dg.AssetKey) -> set[int]:
    """Ids of the newest execution of each check and partition, and of the newest that is over."""
    is_over = executions.c.execution_status.in_(["SUCCEEDED", "FAILED"])
    newest = sa.func.max(executions.c.id)
    rows = _fetch(
        log.instance,
        sa.select(newest.label("newest"), newest.filter(is_over).label("newest_over"))
        .where(*_old(log, asset))
        .group_by(executions.c.check_name, executions.c.partition),
    )
    return {one for row in rows for one in row if one is not None}


def _old(log: EventLog, asset: dg.AssetKey) -> list[sa.ColumnElement[bool]]:
    return [
        executions.c.asset_key == asset.to_string(),
        executions.c.evaluation_event_storage_id < log.before,
    ]


def _fetch(instance: dg.DagsterInstance, query: sa.Select[Any]) -> Sequence[Any]:
    with event_log_transaction(instance) as connection:
        return connection.execute(query).all()
