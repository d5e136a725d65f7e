"""Files of a source folder that somebody is still writing, seen by the sensor and its runs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from imgflow_tests.orchestration.project import Project
from imgflow_tests.orchestration.test_trouble import failure_text
from imgflow_tests.orchestration.test_way import put
from imgflow_tests.pictures import jpeg


@pytest.fixture(autouse=True)
def _leases(has_leases: bool) -> None:
    if not has_leases:
        pytest.skip("this file system does not tell who writes")


def state(project: Project, key: str) -> str | None:
    image = project.catalog.by_keys([key]).get(key)
    return image.state if image else None


def skipped(project: Project) -> str:
    tick = project.tick()
    assert tick.run_requests in (None, [])
    assert tick.skip_reason is not None
    return str(tick.skip_reason.skip_message)


def test_a_file_is_asked_for_once_it_is_whole(project: Project) -> None:
    body = jpeg(200, 100)
    with (project.source.location.folder / "a.jpg").open("wb", buffering=0) as file:
        file.write(body[:500])
        assert "0 objects listed, 1 still being written and left alone" in skipped(project)
        report = project.ingest()
        assert (report.listed, report.processed, report.failed) == (0, 0, 0)
        assert state(project, "a.jpg") is None
        file.write(body[500:])
    (run,) = project.run_requests(project.tick())
    assert run.success
    assert state(project, "a.jpg") == "ready"


@pytest.mark.parametrize("policy", ["keep", "delete"])
def test_an_image_whose_file_is_being_overwritten_is_not_taken_for_deleted(
    make_project: Callable[..., Project], policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project(on_delete=policy)
    put(project, "a.jpg", jpeg())
    put(project, "b.jpg", jpeg(seed=1))
    project.run_requests(project.tick())
    rows = project.rows()
    missing: list[str] = []
    vanished = type(project.catalog).vanished

    def seen(*args: object) -> object:
        found = vanished(*args)  # type: ignore[arg-type]
        missing.extend(image.key for image in found)
        return found

    monkeypatch.setattr(type(project.catalog), "vanished", seen)
    body = jpeg(90, 30)
    with (project.source.location.folder / "a.jpg").open("wb", buffering=0) as file:
        for part in (body[:300], body[300:]):
            assert "1 objects listed, 1 still being written" in skipped(project)
            file.write(part)
        assert missing == [], "the listing itself says that it is there"
        assert project.rows() == rows
    project.run_requests(project.tick())
    assert project.catalog.by_keys(["a.jpg"])["a.jpg"].width == 90


def test_a_file_that_is_overwritten_between_listing_and_reading_gets_no_verdict(
    project: Project,
) -> None:
    put(project, "a.jpg", jpeg())
    put(project, "b.jpg", jpeg(seed=1))
    result = project.tick()
    body = jpeg(90, 30)
    with (project.source.location.folder / "a.jpg").open("wb", buffering=0) as file:
        file.write(body[:300])
        (run,) = project.run_requests(result)
        assert "'a.jpg' is still being written" in failure_text(run)
        assert (state(project, "a.jpg"), state(project, "b.jpg")) == ("pending", "ready")
        assert "still being written" in failure_text(project.materialize(["a.jpg"]))
        assert state(project, "a.jpg") == "pending"
        file.write(body[300:])
    project.end_pauses()
    (run,) = project.run_requests(project.tick())
    assert run.success
    assert project.catalog.by_keys(["a.jpg"])["a.jpg"].width == 90
