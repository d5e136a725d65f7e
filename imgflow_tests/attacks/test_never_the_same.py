"""What looks new at each look does not keep imgflow busy."""

from __future__ import annotations

import threading

import dagster as dg
import pytest

from imgflow.settings.variables import Settings
from imgflow_tests.orchestration.project import Project
from imgflow_tests.pictures import jpeg
from imgflow_tests.store.folders import put

LOOKS = 8
# One that finds the first change, and three more.
MOST_RUNS = 4


@pytest.fixture
def project(settings: Settings, instance: dg.DagsterInstance) -> Project:
    return Project(settings, instance)


def let_no_pause_end(project: Project) -> None:
    """As if looks and runs took no time, however slow this machine is."""
    with project.catalog.engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE images SET not_before = now() + interval '1 hour' WHERE not_before IS NOT NULL"
        )


def test_a_file_that_is_replaced_all_the_time(project: Project) -> None:
    folder = project.source.location.folder
    put(folder, "a.jpg", jpeg())
    done = threading.Event()

    def replace() -> None:
        while not done.is_set():
            put(folder.parent, "new.jpg", jpeg())
            (folder.parent / "new.jpg").replace(folder / "a.jpg")

    thread = threading.Thread(target=replace)
    thread.start()
    runs = 0
    try:
        for _ in range(LOOKS):
            runs += len(project.run_requests(project.tick()))
            let_no_pause_end(project)
    finally:
        done.set()
        thread.join()
    assert 1 <= runs <= MOST_RUNS
    image = project.catalog.by_keys(["a.jpg"])["a.jpg"]
    assert (image.state, image.reason_code, image.attempts) == ("pending", "changing", 3)
    assert "overwritten all the time" in str(image.reason)

    project.end_pauses()
    project.run_requests(project.tick())
    assert project.catalog.by_keys(["a.jpg"])["a.jpg"].state == "ready", "it was left alone"


def test_a_file_that_comes_and_goes_all_the_time(project: Project) -> None:
    """A run never finds what the listing before it showed."""
    folder = project.source.location.folder
    runs = 0
    for number in range(LOOKS):
        put(folder, "a.jpg", jpeg(seed=number))
        tick = project.tick()
        (folder / "a.jpg").unlink()
        runs += len(project.run_requests(tick))
        project.tick()
        let_no_pause_end(project)
    assert 1 <= runs <= MOST_RUNS
    put(folder, "a.jpg", jpeg())
    project.end_pauses()
    project.run_requests(project.tick())
    assert project.catalog.by_keys(["a.jpg"])["a.jpg"].state == "ready"
