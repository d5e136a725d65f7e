"""Rows of many events that differ in a few places, without serialising each as a whole.

Dagster takes 0.2 to 0.5 ms to make and serialise an event, and an image has seven of them. Events
of one shape (the same kind, asset and run, and the same names and types of metadata) differ in
time, partition, values and tags only. So the first of a shape is serialised by Dagster and becomes
the template of the others: its JSON, cut at the places where they differ. The second is made both
ways: a template that does not give the very bytes of Dagster is not used again, so that another
version of Dagster makes this slower and never wrong.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from json.encoder import encode_basestring_ascii
from math import isfinite
from typing import Any, NamedTuple

import dagster as dg
import sqlalchemy as sa

from imgflow.catalog.database.copy import copy_rows

Row = dict[str, Any]
Place = tuple[str | int, ...]

MATERIALIZATION = dg.DagsterEventType.ASSET_MATERIALIZATION.value
PLANNED = dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED.value


class Markdown(str):
    """A value that the UI shows as Markdown; Dagster's own takes 3 µs to make."""

    __slots__ = ()


class Url(str):
    """A value that the UI shows as a link."""

    __slots__ = ()


def as_dagster(value: Any) -> Any:
    """A value as Dagster's events have it."""
    if isinstance(value, Markdown):
        return dg.MetadataValue.md(str(value))
    if isinstance(value, Url):
        return dg.MetadataValue.url(str(value))
    return value


# Under which name Dagster stores a metadata value of a type; others make no template.
SLOTS: Mapping[type, str] = {
    **{int: "value", float: "value", bool: "value", str: "text"},
    Markdown: "md_str",
    Url: "url",
}

TEXTS = frozenset({str, Markdown, Url})

# The NUL is in no text that PostgreSQL can store, so no event has this of its own.
HOLE = re.compile(r'"\\u0000(\d+)\\u0000"')


class Shape(NamedTuple):
    """What events of one template have in common.

    Attributes:
        kind: type of the event.
        subject: all else that is the same in them and not the same in others.
        tags: names of a materialisation's tags.
        labels: of its metadata, with the type of each value.
    """

    kind: str
    subject: Hashable
    tags: tuple[str, ...] = ()
    labels: tuple[tuple[str, type], ...] = ()

    def places(self) -> list[Place]:
        """Where events of this shape differ, in the order of `Outline.values`."""
        data: Place = ("dagster_event", "event_specific_data")
        if self.kind == PLANNED:
            return [("timestamp",), (*data, "partition")]
        data = (*data, "materialization")
        return [
            ("timestamp",),
            (*data, "partition"),
            *((*data, "tags", name) for name in self.tags),
            *(
                (*data, "metadata_entries", position, "entry_data", SLOTS[kind])
                for position, (_, kind) in enumerate(self.labels)
            ),
        ]


class Outline(NamedTuple):
    """An event without what it shares with others: its time, partition, tags and metadata."""

    shape: Shape
    values: Sequence[Any]


def materialization_outline(
    asset_key: dg.AssetKey,
    partition: str,
    tags: Mapping[str, str],
    metadata: Mapping[str, Any],
    time: float,
) -> Outline | None:
    """Outline a materialisation; None when its metadata has values that make no template."""
    labels = tuple((label, type(value)) for label, value in metadata.items())
    if any(kind not in SLOTS for _, kind in labels):
        return None
    shape = Shape(MATERIALIZATION, asset_key, tuple(tags), labels)
    return Outline(shape, (time, partition, *tags.values(), *metadata.values()))


def planned_outline(entry: Any) -> Outline | None:
    """Outline what Dagster says of a partition before a run; None of any other entry."""
    event = entry.dagster_event
    if event is None or event.event_type_value != PLANNED:
        return None
    specific = event.event_specific_data
    subject = event.message, specific.asset_key, specific.partitions_subset
    return Outline(Shape(PLANNED, subject), (entry.timestamp, specific.partition))


class RowWriter:
    """Makes the rows of one run's events."""

    def __init__(self, row_of: Callable[[Any], Row]) -> None:
        """Take Dagster's own way.

        Args:
            row_of: makes the row of an event: columns by name, `event` as JSON.
        """
        self._row_of = row_of
        self._templates: dict[Shape, _Template] = {}

    def row(self, outline: Outline | None, entry: Callable[[], Any]) -> Row:
        """Make the row of an event.

        Args:
            outline: what it is like, when it may have a template.
            entry: makes Dagster's object of it, which most do not need.
        """
        if outline is None:
            return self._row_of(entry())
        template = self._templates.get(outline.shape)
        if template is None:
            row = self._row_of(entry())
            self._templates[outline.shape] = _Template.of(row, outline.shape)
            return row
        if template.is_right is None:
            row = self._row_of(entry())
            template.is_right = template.fill(outline.values) == row
            return row
        return template.fill(outline.values) if template.is_right else self._row_of(entry())


@dataclass
class _Template:
    """The row of one event, its JSON cut where others differ.

    Attributes:
        columns: all columns; those that differ are written over.
        texts: between the places, one more than there are places.
        order: which value goes where.
        is_right: None until it has been compared with Dagster's own.
    """

    columns: Row
    texts: list[str]
    order: list[int]
    is_right: bool | None = None

    @classmethod
    def of(cls, row: Row, shape: Shape) -> _Template:
        tree = json.loads(row["event"])
        for number, (*path, last) in enumerate(shape.places()):
            branch = tree
            for step in path:
                branch = branch[step]
            branch[last] = f"\0{number}\0"
        texts = HOLE.split(json.dumps(tree))
        return cls(row, texts[::2], [int(number) for number in texts[1::2]])

    def fill(self, values: Sequence[Any]) -> Row:
        parts = [self.texts[0]]
        for number, text in zip(self.order, self.texts[1:], strict=True):
            parts += (_as_json(values[number]), text)
        time, partition, *_ = values
        return {
            **self.columns,
            "event": "".join(parts),
            # PostgreSQL wants UTC without its name.
            "timestamp": datetime.fromtimestamp(time, UTC).replace(tzinfo=None),
            "partition": partition,
        }


def _as_json(value: Any) -> str:
    # As `json.dumps`, which takes five times as long for texts and whole numbers.
    kind = type(value)
    if kind in TEXTS:
        return encode_basestring_ascii(value)
    if kind is int:
        return str(value)
    if kind is float and isfinite(value):
        return repr(value)
    return json.dumps(value)


# Statements that put many events at once into the tables of Dagster's event log.
#
# They know the columns; the names of the tables are Dagster's own, which `event_log` has.


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
