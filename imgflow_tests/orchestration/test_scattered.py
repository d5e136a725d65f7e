"""Overwritten images that lie between rejected ones, and between those that are done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from imgflow.orchestration.dagster_storage.event_log import BulkPostgresEventLogStorage
from imgflow.work import batch
from imgflow_tests.orchestration.project import Project
from imgflow_tests.orchestration.test_way import put
from imgflow_tests.pictures import jpeg

GOOD = [f"{number:02}.jpg" for number in range(0, 12, 2)]
BROKEN = [f"{number:02}.jpg" for number in range(1, 12, 2)]


def overwritten(project: Project, *keys: str) -> None:
    """Good and broken images in turn are processed, and some of the good are overwritten."""
    for number, key in enumerate(GOOD):
        put(project, key, jpeg(seed=number))
    for key in BROKEN:
        put(project, key, b"no picture")
    project.run_requests(project.tick())
    for number, key in enumerate(keys):
        put(project, key, jpeg(90, 60, seed=100 + number))


def widths(project: Project, *keys: str) -> set[int | None]:
    return {image.width for image in project.catalog.by_keys(keys).values()}


def test_they_take_no_run_each_when_that_is_more_than_there_may_be(
    make_project: Callable[..., Project],
) -> None:
    project = make_project(runs=1)
    overwritten(project, *GOOD)
    rejected = project.catalog.by_keys(BROKEN)
    (run,) = project.run_requests(project.tick())
    assert not run.success, "rejected images stay red"
    assert widths(project, *GOOD) == {90}
    assert project.catalog.by_keys(BROKEN) == rejected, "they were not looked at"
    colours = project.statuses("photo/thumbnail")
    assert {colours[key] for key in GOOD} == {"green"}
    assert {colours[key] for key in BROKEN} == {"red"}
    assert project.tick().run_requests == []


def test_few_of_them_leave_the_rejected_ones_out(make_project: Callable[..., Project]) -> None:
    project = make_project(runs=2)
    overwritten(project, GOOD[0], GOOD[3])
    runs = project.run_requests(project.tick())
    assert [run.success for run in runs] == [True, True]
    assert widths(project, GOOD[0], GOOD[3]) == {90}


def test_events_of_those_that_are_done_are_stored_in_pieces(
    make_project: Callable[..., Project], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project(runs=1)
    for number, key in enumerate(GOOD):
        put(project, key, jpeg(seed=number))
    project.run_requests(project.tick())
    stored: list[int] = []
    store = BulkPostgresEventLogStorage.store_images

    def counted(
        self: BulkPostgresEventLogStorage, step: Any, levels: Sequence[Sequence[Any]]
    ) -> None:
        stored.append(len({event.partition for level in levels for event in level}))
        store(self, step, levels)

    monkeypatch.setattr(BulkPostgresEventLogStorage, "store_images", counted)
    monkeypatch.setattr(batch, "FLUSH_IMAGES", 2)
    for number, key in enumerate((GOOD[0], GOOD[-1])):
        put(project, key, jpeg(90, 60, seed=100 + number))
    (run,) = project.run_requests(project.tick())
    assert run.success
    assert sum(stored) == len(GOOD)
    assert max(stored) == 2
    assert project.newest("photo/thumbnail", GOOD[2]).metadata["noop"].value is True
