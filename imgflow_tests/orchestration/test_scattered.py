"""Overwritten images that lie between rejected ones."""

from __future__ import annotations

from collections.abc import Callable

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
