"""Images that are overwritten and then deleted before the newer upload is read."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from imgflow_tests.orchestration.project import Project
from imgflow_tests.orchestration.test_lifecycle import remove, state
from imgflow_tests.orchestration.test_way import put
from imgflow_tests.pictures import depth_csv, jpeg

BEFORE = {"a.jpg": jpeg(), "hole.csv": depth_csv()}
NEWER = {"a.jpg": jpeg(seed=1), "hole.csv": depth_csv(seed=1)}


def gone_before_it_was_read(project: Project) -> None:
    """A run was asked for the newer uploads, and finds that there are none any more."""
    for key, body in BEFORE.items():
        put(project, key, body)
    project.run_requests(project.tick())
    for key, body in NEWER.items():
        put(project, key, body)
    asked = project.tick()
    assert asked.run_requests
    remove(project, *NEWER)
    project.run_requests(asked)


@pytest.mark.parametrize("policy", ["tombstone", "delete"])
def test_they_go_as_the_setting_says(make_project: Callable[..., Project], policy: str) -> None:
    project = make_project(on_delete=policy)
    gone_before_it_was_read(project)
    project.tick()
    gone = "deleted" if policy == "tombstone" else None
    assert [state(project, key) for key in BEFORE] == [gone, gone]
    assert project.stored() == {}
    for name in ("photos", "depth_images"):
        assert project.instance.get_dynamic_partitions(name) == []


def test_by_default_they_stay_as_they_were_and_are_noted_once(project: Project) -> None:
    gone_before_it_was_read(project)
    project.tick()
    images = project.catalog.by_keys([*BEFORE])
    assert {key: image.state for key, image in images.items()} == dict.fromkeys(BEFORE, "ready")
    assert all(image.gone_at is not None for image in images.values())
    rows = project.rows()
    assert project.tick().run_requests == []
    assert project.rows() == rows
