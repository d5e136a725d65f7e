"""The retention's queries: which events and check evaluations in Dagster's log decide nothing.

What Dagster reads for its statuses, as of 1.13.27:

- A partition is green if it has a materialisation, and red if its newest planned event comes after
  its newest materialisation and belongs to a failed run.
- A partition's page names the run of its newest planned event, unless that run made its newest
  materialisation; an asset's badge is the run of the asset's newest planned event.
- An asset is stale if the newest materialisation of an input has another data version than the one
  its own newest materialisation points to. So an input's older event is needed as long as something
  points to it.

Every statement reads a bounded number of events and locks only the rows it deletes. What is kept
and for how long is decided in `upkeep.retention`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import dagster as dg
import sqlalchemy as sa

from imgflow.orchestration.dagster_storage.event_log import (
    AssetCheckExecutionsTable,
    AssetEventTagsTable,
    AssetKeyTable,
    SqlEventLogStorageTable,
)
from imgflow.orchestration.dagster_storage.queries import (
    event_log_transaction,
    input_pointer_pattern,
)

events = SqlEventLogStorageTable
MATERIALIZATION = dg.DagsterEventType.ASSET_MATERIALIZATION.value
PLANNED = dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED.value


@dataclass(frozen=True)
class EventLog:
    """The events before a moment, of runs that are over.

    Attributes:
        before: Events with this id or a higher one are never deleted.
        unfinished: Ids of runs whose events are never deleted.
        page_events: Maximum events that one statement reads or deletes.
    """

    instance: dg.DagsterInstance
    before: int
    unfinished: Sequence[str]
    page_events: int

    def superseded_materializations(self, asset: dg.AssetKey) -> Iterator[list[int]]:
        """Ids of materialisations with a newer one for the same partition, page by page.

        Those whose newer one came after the moment are kept, and so are those that the newest
        materialisation of another asset points to.
        """
        after: str | None = None
        while True:
            until = self._end_of_page(asset, after)
            found = self._superseded_between(asset, after, until)
            pointers = self._pointers(asset, sorted({row.partition for row in found}))
            yield [
                row.id
                for row in found
                if not any(row.id <= pointer < row.next_id for pointer in pointers[row.partition])
            ]
            if until is None:
                return
            after = until

    def superseded_plans(self, assets: Sequence[dg.AssetKey]) -> Iterator[list[int]]:
        """Ids of planned events with a newer one for the same asset and partition, by page."""
        for page in self._plans(assets):
            yield [row.id for row in page if row.newest_plan > row.id]

    def answered_plans(self, assets: Sequence[dg.AssetKey]) -> Iterator[list[int]]:
        """Ids of newest planned events whose run made the partition's newest materialisation.

        If an older planned event is left, the newest stays, or the older would take its place.
        """
        shown = self._newest_plans(assets)
        for page in self._plans(assets):
            yield [
                row.id
                for row in page
                if row.oldest_plan == row.id == row.newest_plan
                and row.made_id is not None
                and row.made_id > row.id
                and row.made_by == row.run_id
                and row.id not in shown
            ]

    def log_lines(self, event_type: str | None) -> Iterator[list[Any]]:
        """Rows `id`, `run_id` of one type of event, by page; None stands for log messages."""
        of_type = (
            events.c.dagster_event_type.is_(None)
            if event_type is None
            else events.c.dagster_event_type == event_type
        )
        yield from self._pages(sa.select(events.c.id, events.c.run_id).where(of_type))

    def runs_without_assets(self, run_ids: Sequence[str]) -> list[str]:
        """Ids of those runs that have no asset event left and are not the last run of any asset."""
        runs = _table_of(run_ids)
        has_events = sa.exists().where(
            events.c.run_id == runs.c.value, events.c.asset_key.is_not(None)
        )
        is_last = sa.exists().where(AssetKeyTable.c.last_run_id == runs.c.value)
        rows = self._fetch(
            sa.select(runs.c.value, has_events.label("has_events"), is_last.label("is_last"))
        )
        return [row.value for row in rows if not row.has_events and not row.is_last]

    def events_of(self, run_ids: Sequence[str]) -> Iterator[list[int]]:
        """Ids of all events of the runs, page by page."""
        for page in self._pages(sa.select(events.c.id).where(events.c.run_id.in_(run_ids))):
            yield [row.id for row in page]

    def delete(self, event_ids: Sequence[int]) -> list[int]:
        """Delete events with their tags, in one transaction; returns the bytes of each event."""
        if not event_ids:
            return []
        with event_log_transaction(self.instance) as connection:
            return self.delete_with(connection, event_ids)

    def delete_with(self, connection: sa.Connection, event_ids: Sequence[int]) -> list[int]:
        """Delete events with their tags in an open transaction; returns the bytes of each event."""
        ids = sa.cast(event_ids, sa.ARRAY(sa.BigInteger))
        # Tags first: no foreign key deletes them.
        connection.execute(
            sa.delete(AssetEventTagsTable).where(AssetEventTagsTable.c.event_id == sa.any_(ids))
        )
        deleted = connection.execute(
            sa.delete(events)
            .where(events.c.id == sa.any_(ids))
            .returning(sa.func.octet_length(events.c.event))
        )
        return list(deleted.scalars())

    def _end_of_page(self, asset: dg.AssetKey, after: str | None) -> str | None:
        """The last partition of a page; None if the page reaches the end."""
        ends = self._fetch(
            sa.select(events.c.partition)
            .where(*self._between(asset, after, None))
            .order_by(events.c.partition, events.c.id)
            .offset(self.page_events)
            .limit(1)
        )
        return ends[0].partition if ends else None

    def _superseded_between(
        self, asset: dg.AssetKey, after: str | None, until: str | None
    ) -> Sequence[Any]:
        next_id = sa.func.lead(events.c.id).over(
            partition_by=events.c.partition, order_by=events.c.id
        )
        all_of_page = (
            sa.select(events.c.id, events.c.partition, next_id.label("next_id"))
            .where(*self._between(asset, after, until))
            .subquery()
        )
        superseded = sa.select(all_of_page).where(all_of_page.c.next_id < self.before).subquery()
        return self._fetch(
            sa.select(superseded)
            .join(events, events.c.id == superseded.c.id)
            .where(self._is_over())
            .order_by(superseded.c.id)
        )

    def _between(
        self, asset: dg.AssetKey, after: str | None, until: str | None
    ) -> list[sa.ColumnElement[bool]]:
        conditions = [
            events.c.asset_key == asset.to_string(),
            events.c.dagster_event_type == MATERIALIZATION,
            events.c.partition.is_not(None),
        ]
        if after is not None:
            conditions.append(events.c.partition > after)
        if until is not None:
            conditions.append(events.c.partition <= until)
        return conditions

    def _pointers(
        self, asset: dg.AssetKey, partitions: Sequence[str]
    ) -> Mapping[str, Sequence[int]]:
        """Pointers by partition, from the newest materialisations that have this asset as input.

        A pointer is the id of the asset's event that was the input, or a later id.
        """
        pointers: dict[str, list[int]] = defaultdict(list)
        if not partitions:
            return pointers
        wanted = _table_of(partitions)
        newest = (
            sa.select(events.c.event)
            .where(
                events.c.asset_key == AssetKeyTable.c.asset_key,
                events.c.dagster_event_type == MATERIALIZATION,
                events.c.partition == wanted.c.value,
            )
            .order_by(events.c.id.desc())
            .limit(1)
            .lateral()
        )
        pointer = sa.func.substring(newest.c.event, input_pointer_pattern(asset))
        rows = self._fetch(
            sa.select(wanted.c.value, sa.cast(pointer, sa.BigInteger).label("pointer"))
            .select_from(AssetKeyTable)
            .join(wanted, sa.true())
            .join(newest, sa.true())
            .where(pointer.is_not(None))
        )
        for row in rows:
            pointers[row.value].append(row.pointer)
        return pointers

    def _plans(self, assets: Sequence[dg.AssetKey]) -> Iterator[list[Any]]:
        """Planned events, each with its partition's newest and oldest plan and newest result."""
        plan = sa.select(
            events.c.id, events.c.asset_key, events.c.partition, events.c.run_id
        ).where(
            events.c.dagster_event_type == PLANNED,
            events.c.asset_key.in_([key.to_string() for key in assets]),
            events.c.partition.is_not(None),
        )

        def other(column: str, event_type: str, *, is_newest: bool) -> Any:
            found = events.alias()
            order = found.c.id.desc() if is_newest else found.c.id.asc()
            return lambda page: (
                sa.select(found.c[column])
                .where(
                    found.c.asset_key == page.c.asset_key,
                    found.c.dagster_event_type == event_type,
                    found.c.partition == page.c.partition,
                )
                .order_by(order)
                .limit(1)
                .scalar_subquery()
            )

        yield from self._pages(
            plan,
            newest_plan=other("id", PLANNED, is_newest=True),
            oldest_plan=other("id", PLANNED, is_newest=False),
            made_id=other("id", MATERIALIZATION, is_newest=True),
            made_by=other("run_id", MATERIALIZATION, is_newest=True),
        )

    def _newest_plans(self, assets: Sequence[dg.AssetKey]) -> set[int]:
        """Ids of the newest planned event of each asset, whose run is the asset's badge."""
        found = set()
        for key in assets:
            rows = self._fetch(
                sa.select(sa.func.max(events.c.id).label("id")).where(
                    events.c.asset_key == key.to_string(), events.c.dagster_event_type == PLANNED
                )
            )
            found |= {row.id for row in rows}
        return found

    def _pages(self, query: sa.Select[Any], **extra: Any) -> Iterator[list[Any]]:
        """Pages of event rows in order of id, with one more column for each extra."""
        after = 0
        while True:
            page = (
                query.where(events.c.id > after, events.c.id < self.before, self._is_over())
                .order_by(events.c.id)
                .limit(self.page_events)
                .subquery("page")
            )
            columns = [make(page).label(name) for name, make in extra.items()]
            rows = list(self._fetch(sa.select(page, *columns).order_by(page.c.id)))
            if not rows:
                return
            yield rows
            after = rows[-1].id

    def _is_over(self) -> sa.ColumnElement[bool]:
        return events.c.run_id.not_in(self.unfinished)

    def _fetch(self, query: sa.Select[Any]) -> Sequence[Any]:
        with event_log_transaction(self.instance) as connection:
            return connection.execute(query).all()


def first_id_since(instance: dg.DagsterInstance, moment: datetime) -> int:
    """The id below which all events are older than a moment.

    Found by bisection, since no index has the time; ids and times rise together.
    """
    since = moment.astimezone(UTC).replace(tzinfo=None)
    with event_log_transaction(instance) as connection:
        newest = connection.execute(sa.select(sa.func.max(events.c.id))).scalar() or 0
        low, high = 0, newest + 1
        while low < high:
            middle = (low + high) // 2
            found = connection.execute(
                sa.select(events.c.id, events.c.timestamp)
                .where(events.c.id >= middle)
                .order_by(events.c.id)
                .limit(1)
            ).first()
            if found is None or found.timestamp >= since:
                high = middle
            else:
                low = found.id + 1
    return low


def _table_of(values: Sequence[str]) -> Any:
    """A table with one column `value`."""
    array = sa.cast(values, sa.ARRAY(sa.Text))
    return sa.func.unnest(array).table_valued("value", name="wanted").render_derived()


# Evaluations of asset checks that decide nothing.
#
# For the status of a check, Dagster 1.13.27 reads its newest execution, whatever its partition; its
# newest execution that is not merely planned; and the newest of each partition. Each run over
# images adds five executions, which is what makes a check's history grow.


executions = AssetCheckExecutionsTable


class Evaluation(NamedTuple):
    """Ids of a check's execution and of the event that reported it."""

    id: int
    event_id: int


def superseded_evaluations(log: EventLog, asset: dg.AssetKey) -> Iterator[list[Evaluation]]:
    """Executions of an asset's checks that a newer one replaced, page by page.

    Those replaced only after the moment of the log are kept.
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
    """Delete executions with their events, in one transaction; returns the bytes of each."""
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
    """Ids of the runs that the remaining executions link to."""
    return {row.run_id for row in _fetch(instance, sa.select(executions.c.run_id).distinct())}


def _needed(log: EventLog, asset: dg.AssetKey) -> set[int]:
    """Ids of each check and partition's newest execution, and of its newest that is over."""
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
