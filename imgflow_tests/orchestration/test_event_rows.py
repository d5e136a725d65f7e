"""Rows made from a template are to the byte what Dagster makes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import dagster as dg
import pytest
from dagster._core.events import DagsterEvent, StepMaterializationData
from dagster._core.events.log import EventLogEntry
from hypothesis import given, settings
from hypothesis import strategies as st

from imgflow.orchestration.dagster_storage.event_rows import (
    MATERIALIZATION,
    PLANNED,
    Markdown,
    Outline,
    Row,
    RowWriter,
    Url,
    as_dagster,
    materialization_outline,
)
from imgflow_tests.orchestration.project import Project
from imgflow_tests.orchestration.test_way import put
from imgflow_tests.pictures import depth_csv, jpeg

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
VALUES = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.booleans(),
    TEXT,
    st.floats(allow_nan=False),
    TEXT.map(Markdown),
    TEXT.map(Url),
)


@dataclass(frozen=True)
class Event:
    """What is said of an image, and both ways of writing it down."""

    partition: str
    metadata: dict[str, Any]
    tags: dict[str, str]
    asset: str = "thumbnail"

    @property
    def time(self) -> float:
        return 1795236130.5 + len(self.partition)

    def outline(self) -> Outline | None:
        key = dg.AssetKey(["photo", self.asset])
        return materialization_outline(key, self.partition, self.tags, self.metadata, self.time)

    def entry(self) -> EventLogEntry:
        materialization = dg.AssetMaterialization(
            dg.AssetKey(["photo", self.asset]),
            partition=self.partition,
            metadata={name: as_dagster(value) for name, value in self.metadata.items()},
            tags=self.tags,
        )
        event = DagsterEvent(
            event_type_value="ASSET_MATERIALIZATION",
            job_name="job",
            event_specific_data=StepMaterializationData(materialization),
        )
        return EventLogEntry(
            user_message="",
            level=10,
            job_name="job",
            run_id="run",
            error_info=None,
            timestamp=self.time,
            dagster_event=event,
        )

    def row(self, writer: RowWriter) -> Row:
        return writer.row(self.outline(), self.entry)


class Counting:
    """Dagster's way, counted."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.storage: Any = instance.event_log_storage
        self.calls = 0

    def row_of(self, event: EventLogEntry) -> Row:
        self.calls += 1
        row: Row = self.storage._event_to_row(event)
        return row

    def writer(self) -> RowWriter:
        return RowWriter(self.row_of)


@pytest.fixture(scope="module")
def storage() -> Any:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@settings(deadline=None, max_examples=60)
@given(
    labels=st.lists(TEXT, max_size=4, unique=True),
    rows=st.lists(st.tuples(TEXT, st.lists(VALUES, min_size=4, max_size=4), TEXT), max_size=12),
)
def test_whatever_partitions_and_values_hold(
    storage: dg.DagsterInstance, labels: list[str], rows: list[tuple[str, list[Any], str]]
) -> None:
    counting = Counting(storage)
    writer = counting.writer()
    for partition, values, tag in rows:
        one = Event(
            f"p{partition}",
            dict(zip(labels, values, strict=False)),
            {"dagster/data_version": f"v{tag}", "dagster/code_version": "c"},
        )
        assert one.row(writer) == counting.storage._event_to_row(one.entry())


def test_of_many_events_of_a_shape_dagster_serialises_two(storage: dg.DagsterInstance) -> None:
    counting = Counting(storage)
    writer = counting.writer()
    for number in range(100):
        Event(f"k{number}", {"width": number, "noop": False}, {"a": "b"}).row(writer)
    assert counting.calls == 2


@pytest.mark.parametrize(
    "other",
    [
        Event("k", {"width": 1, "noop": "False"}, {"a": "b"}),
        Event("k", {"noop": False, "width": 1}, {"a": "b"}),
        Event("k", {"width": 1}, {"a": "b"}),
        Event("k", {"width": 1, "noop": False}, {"c": "d", "a": "b"}),
        Event("k", {"width": 1, "noop": False}, {"a": "b"}, asset="proof"),
        Event("k", {"width": 1, "noop": Markdown("*no*")}, {"a": "b"}),
    ],
    ids=["type", "order", "fewer", "tags", "asset", "markdown"],
)
def test_an_event_of_another_shape_is_not_made_from_the_template(
    storage: dg.DagsterInstance, other: Event
) -> None:
    counting = Counting(storage)
    writer = counting.writer()
    for number in range(3):
        Event(f"k{number}", {"width": number, "noop": False}, {"a": "b"}).row(writer)
    assert other.row(writer) == counting.storage._event_to_row(other.entry())


def test_a_template_that_is_not_right_is_not_used(storage: dg.DagsterInstance) -> None:
    """As with a Dagster that writes something else that differs from event to event."""
    counting = Counting(storage)
    dagsters = counting.row_of

    def newer(event: Any) -> Row:
        row = dagsters(event)
        return {**row, "event": row["event"].replace("{", f'{{"nonce": {counting.calls}, ', 1)}

    writer = RowWriter(newer)
    for number in range(10):
        Event(f"k{number}", {"width": number}, {}).row(writer)
    assert counting.calls == 10


def test_with_this_dagster_all_templates_of_a_real_run_are_right(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: Counter[tuple[str, bool | None]] = Counter()
    row = RowWriter.row

    def watched(self: RowWriter, outline: Outline | None, entry: Callable[[], Any]) -> Row:
        made = row(self, outline, entry)
        seen.update((shape.kind, known.is_right) for shape, known in self._templates.items())
        return made

    monkeypatch.setattr(RowWriter, "row", watched)
    for number in range(5):
        put(project, f"{number}.jpg", jpeg(seed=number))
        put(project, f"{number}.csv", depth_csv(20, seed=number))
    for run in project.run_requests(project.tick()):
        assert run.success
    assert {kind for kind, is_right in seen if is_right} == {PLANNED, MATERIALIZATION}
    assert {is_right for _, is_right in seen} <= {True, None}
