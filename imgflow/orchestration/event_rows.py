"""Rows of many events that differ in a few places, without serialising each as a whole.

Dagster takes 0.2 to 0.5 ms to serialise an event, and an image has seven of them. Events of one
shape (the same kind, asset and run, and the same names and types of metadata) differ in time,
partition, values and tags only. So the first of a shape is serialised by Dagster and serves as the
template of the others. The second is made both ways: a template that does not give the very bytes
of Dagster is not used again, so that another version of Dagster makes this slower and never wrong.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg

Row = dict[str, Any]

MATERIALIZATION = dg.DagsterEventType.ASSET_MATERIALIZATION.value
PLANNED = dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED.value

# What the value of a metadata entry is called; entries of other types make no template.
VALUES: Mapping[type, str] = {
    dg.IntMetadataValue: "value",
    dg.FloatMetadataValue: "value",
    dg.BoolMetadataValue: "value",
    dg.TextMetadataValue: "text",
    dg.MarkdownMetadataValue: "md_str",
}


class RowWriter:
    """Makes the rows of a batch of events."""

    def __init__(self, row_of: Callable[[Any], Row], time_of: Callable[[Any], Any]) -> None:
        """Take Dagster's own ways.

        Args:
            row_of: makes the row of an event: columns by name, `event` as JSON.
            time_of: the value of the column `timestamp` of an event.
        """
        self._row_of = row_of
        self._time_of = time_of
        self._templates: dict[Any, _Template] = {}

    def row(self, entry: Any) -> Row:
        """Make the row of an event."""
        shape = _shape(entry)
        if shape is None:
            return self._row_of(entry)
        template = self._templates.get(shape)
        if template is None:
            row = self._row_of(entry)
            self._templates[shape] = _Template(row, json.loads(row["event"]))
            return row
        if template.is_right is None:
            row = self._row_of(entry)
            template.is_right = template.fill(entry, self._time_of(entry)) == row
            return row
        if not template.is_right:
            return self._row_of(entry)
        return template.fill(entry, self._time_of(entry))


@dataclass
class _Template:
    """The row of one event and its parsed JSON, whose differing places are written over."""

    columns: Row
    tree: Any
    is_right: bool | None = None

    def fill(self, entry: Any, time: Any) -> Row:
        specific = entry.dagster_event.event_specific_data
        self.tree["timestamp"] = entry.timestamp
        data = self.tree["dagster_event"]["event_specific_data"]
        if entry.dagster_event.event_type_value == PLANNED:
            partition = data["partition"] = specific.partition
        else:
            materialization = specific.materialization
            data = data["materialization"]
            partition = data["partition"] = materialization.partition
            data["tags"] = dict(sorted(materialization.tags.items()))
            for slot, value in zip(
                data["metadata_entries"], materialization.metadata.values(), strict=True
            ):
                slot["entry_data"][VALUES[type(value)]] = value.value
        return {
            **self.columns,
            "event": json.dumps(self.tree),
            "timestamp": time,
            "partition": partition,
        }


def _shape(entry: Any) -> Any:
    """What events of one template have in common; None for events that have no template."""
    event = entry.dagster_event
    if event is None:
        return None
    specific = event.event_specific_data
    if event.event_type_value == PLANNED:
        return entry.run_id, event.message, specific.asset_key, specific.partitions_subset
    if event.event_type_value != MATERIALIZATION:
        return None
    materialization = specific.materialization
    labels = tuple((label, type(value)) for label, value in materialization.metadata.items())
    if any(kind not in VALUES for _, kind in labels):
        return None
    return entry.run_id, event.message, materialization.asset_key, labels
