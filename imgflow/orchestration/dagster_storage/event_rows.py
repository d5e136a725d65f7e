"""Makes rows for many similar events without serialising each, and copies them into the tables.

Dagster takes 0.2 to 0.5 ms to make and serialise an event, and an image has seven. Events of one
shape (the same type, asset and run, and the same names and types of metadata) differ only in time,
partition, values and tags. So Dagster serialises the first event of a shape, and its JSON, cut at
the places where events differ, becomes the template for the others. The second event is made both
ways: a template that does not reproduce Dagster's exact bytes is not used again, so that another
version of Dagster makes this slower but never wrong.

The storage that uses this, with its transactions, is in `event_log`.
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
    """A value that the UI shows as Markdown; Dagster's own type takes 3 µs to make."""

    __slots__ = ()


class Url(str):
    """A value that the UI shows as a link."""

    __slots__ = ()


def as_dagster(value: Any) -> Any:
    """Convert a metadata value to Dagster's own type."""
    if isinstance(value, Markdown):
        return dg.MetadataValue.md(str(value))
    if isinstance(value, Url):
        return dg.MetadataValue.url(str(value))
    return value


# The name under which Dagster stores a metadata value, by type; other types have no template.
SLOTS: Mapping[type, str] = {
    **{int: "value", float: "value", bool: "value", str: "text"},
    Markdown: "md_str",
    Url: "url",
}

TEXTS = frozenset({str, Markdown, Url})

# PostgreSQL cannot store a text with a NUL, so no event contains this.
HOLE = re.compile(r'"\\u0000(\d+)\\u0000"')


class Shape(NamedTuple):
    """What the events of one template have in common.

    Attributes:
        kind: Type of the event, as Dagster stores it.
        subject: Everything else that is the same in these events and differs in others.
        tags: Names of a materialisation's tags.
        labels: Labels of its metadata, with the type of each value.
    """

    kind: str
    subject: Hashable
    tags: tuple[str, ...] = ()
    labels: tuple[tuple[str, type], ...] = ()

    def places(self) -> list[Place]:
        """Paths into the JSON where events of this shape differ, ordered as `Outline.values`."""
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
    """An event as its shape and what is its own: time, partition, tags and metadata."""

    shape: Shape
    values: Sequence[Any]


def materialization_outline(
    asset_key: dg.AssetKey,
    partition: str,
    tags: Mapping[str, str],
    metadata: Mapping[str, Any],
    time: float,
) -> Outline | None:
    """Outline a materialisation; None if its metadata has values of types without a template."""
    labels = tuple((label, type(value)) for label, value in metadata.items())
    if any(kind not in SLOTS for _, kind in labels):
        return None
    shape = Shape(MATERIALIZATION, asset_key, tuple(tags), labels)
    return Outline(shape, (time, partition, *tags.values(), *metadata.values()))


def planned_outline(entry: Any) -> Outline | None:
    """Outline Dagster's planned event of a partition; None for any other entry."""
    event = entry.dagster_event
    if event is None or event.event_type_value != PLANNED:
        return None
    specific = event.event_specific_data
    subject = event.message, specific.asset_key, specific.partitions_subset
    return Outline(Shape(PLANNED, subject), (entry.timestamp, specific.partition))


class RowWriter:
    """Makes the rows of one run's events, from templates where possible."""

    def __init__(self, row_of: Callable[[Any], Row]) -> None:
        """Start without templates.

        Args:
            row_of: Dagster's own function for the row of an event: columns by name, `event` as
                JSON.
        """
        self._row_of = row_of
        self._templates: dict[Shape, _Template] = {}

    def row(self, outline: Outline | None, entry: Callable[[], Any]) -> Row:
        """Make the row of an event.

        Args:
            outline: The event's outline; None if it cannot have a template.
            entry: Makes Dagster's object of the event; not called for most events.
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
    """The row of one event, with its JSON cut at the places where events differ.

    Attributes:
        columns: All columns; those that differ are overwritten.
        texts: The JSON between the places, one more text than there are places.
        order: For each place, the index of its value.
        is_right: Whether it reproduces Dagster's own row; None until compared.
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
            # The column holds UTC without a zone.
            "timestamp": datetime.fromtimestamp(time, UTC).replace(tzinfo=None),
            "partition": partition,
        }


def _as_json(value: Any) -> str:
    # Equivalent to `json.dumps`, which takes five times as long for texts and integers.
    kind = type(value)
    if kind in TEXTS:
        return encode_basestring_ascii(value)
    if kind is int:
        return str(value)
    if kind is float and isfinite(value):
        return repr(value)
    return json.dumps(value)


# Statements that copy many events at once into the tables of Dagster's event log. They know the
# columns; the tables' names come from Dagster, by way of `event_log`.


class NewEvent(NamedTuple):
    """An event that is about to be stored.

    Attributes:
        id: Id that was reserved for it.
        row: Columns by name.
        tags: The tags that Dagster indexes.
        entry: Makes Dagster's object of the event.
    """

    id: int
    row: Row
    tags: Mapping[str, str]
    entry: Callable[[], Any]


class NewEvaluation(NamedTuple):
    """An evaluation of an asset check that is about to be stored.

    Attributes:
        event_id: Id that was reserved for its event.
        run_id: Id of the run whose step reports it.
        row: Columns of its event, by name.
        text: Its event, serialised by Dagster.
    """

    event_id: int
    run_id: str
    evaluation: dg.AssetCheckEvaluation
    row: Mapping[str, Any]
    text: str


def reserved_ids(connection: sa.Connection, count: int) -> list[int]:
    """Reserve ids for new events, in rising order."""
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
    """The last event of each asset and type.

    Sorted by asset and type, so that two runs that write them cannot deadlock.
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
