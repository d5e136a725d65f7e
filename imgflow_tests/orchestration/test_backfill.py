"""Backfills by hand, from the UI's launchpad and by schedule: what they select, and no more."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from typer.testing import CliRunner

from imgflow.cli.main import app
from imgflow_tests.orchestration.project import Project
from imgflow_tests.pictures import depth_csv, jpeg

KEYS = [f"{folder}/{number}.jpg" for folder in ("a", "b") for number in range(6)]


def fill(project: Project) -> None:
    folder = project.stores.locations()[0].folder
    for number, key in enumerate(KEYS):
        file = Path(folder / key)
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(jpeg(60, 40 + number))
    (folder / "d.csv").write_bytes(depth_csv())
    # The last one, since no range covers what is rejected.
    (folder / "z.jpg").write_bytes(b"no picture")
    project.ingest()


def pending(project: Project) -> set[str]:
    return {image.key for image in project.catalog.page(limit=100, state="pending")}


def backfill(*arguments: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["backfill", "--json", *arguments], catch_exceptions=False)
    assert done.exit_code == 0
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_where_nothing_is_stale_nothing_becomes_pending(project: Project) -> None:
    fill(project)
    before = project.rows()
    assert backfill() == {"pending": 0, "photo": 0, "depth": 0}
    assert project.rows() == before


def test_after_a_setting_changed_a_prefix_of_the_stale_ones_is_made_anew(
    project: Project, make_project: Callable[..., Project]
) -> None:
    fill(project)
    changed = make_project(thumbnail_size=32)
    assert backfill("--prefix", "b/") == {"pending": 6, "photo": 6, "depth": 0}
    report = changed.ingest()
    assert (report.processed, report.failed) == (6, 0)
    sizes = {
        image.key: image.outputs["thumbnail"]["width"]
        for image in changed.catalog.page(limit=100, state="ready", kind="photo")
    }
    assert {key for key, width in sizes.items() if width == 32} == set(KEYS[6:])


def test_forced_keys_that_are_far_apart_are_one_run_and_the_others_are_not_touched(
    project: Project,
) -> None:
    fill(project)
    written = project.stored()
    wanted = KEYS[::2]
    assert backfill("--force", *wanted)["pending"] == 6
    result = project.tick()
    assert len(result.run_requests or ()) == 1
    (run,) = project.run_requests(result)
    by_run = {
        image.key
        for image in project.catalog.page(limit=100)
        if image.run_id == run.run_id and image.state == "ready"
    }
    assert by_run == set(wanted)
    after = project.stored()
    names = {key: image.outputs for key, image in project.catalog.by_keys(KEYS).items()}
    for key in KEYS:
        for record in names[key].values():
            was_written = after[record["name"]] != written[record["name"]]
            assert was_written == (key in wanted), key
    assert backfill() == {"pending": 0, "photo": 0, "depth": 0}, "no recipe is lost by it"


def test_pictures_and_depth_frames_are_there_while_a_forced_backfill_waits(
    project: Project,
) -> None:
    fill(project)
    assert backfill("--force", "--all") == {"pending": 13, "photo": 12, "depth": 1}
    for image in project.catalog.page(limit=100, state="pending"):
        for name, record in image.outputs.items():
            assert name == "resized" or project.outputs.exists(record["name"])
    report = project.ingest()
    assert (report.processed, report.rejected, report.failed) == (13, 0, 0)
    assert set(project.statuses("depth/resized").values()) == {"green"}


def test_the_rejected_are_looked_at_again_only_when_asked_for(project: Project) -> None:
    fill(project)
    assert backfill("--prefix", "z")["pending"] == 0
    assert backfill("--prefix", "b/", "--rejected")["pending"] == 0
    assert backfill("--prefix", "z", "--rejected")["pending"] == 1
    assert pending(project) == {"z.jpg"}


def test_to_force_everything_needs_to_be_said(project: Project) -> None:
    fill(project)
    done = CliRunner().invoke(app, ["backfill", "--force"])
    assert "--all" in str(done.exception)
    done = CliRunner().invoke(app, ["backfill", "--kind", "video"])
    assert "photo or depth" in str(done.exception)
    done = CliRunner().invoke(app, ["backfill", "none.jpg"])
    assert "There is no image 'none.jpg'" in str(done.exception)
    assert pending(project) == set()


@pytest.mark.parametrize(
    ("config", "count"), [({}, 0), ({"prefix": "a/", "force": True}, 6), ({"rejected": True}, 1)]
)
def test_an_operator_says_the_same_in_the_launchpad_of_the_job(
    project: Project, config: dict[str, Any], count: int
) -> None:
    fill(project)
    job = project.definitions.resolve_job_def("backfill_stale")
    done = job.execute_in_process(
        {"ops": {"backfill_stale_images": {"config": config}}}, instance=project.instance
    )
    assert done.success
    assert len(pending(project)) == count


def test_the_nightly_schedule_asks_for_the_job_as_it_is(
    project: Project, make_project: Callable[..., Project]
) -> None:
    fill(project)
    changed = make_project(thumbnail_size=32)
    repository = changed.definitions.get_repository_def()
    schedule = repository.get_schedule_def("nightly_backfill_stale")
    with dg.build_schedule_context(
        changed.instance, datetime(2026, 1, 2, 2, tzinfo=UTC)
    ) as context:
        (request,) = schedule.evaluate_tick(context).run_requests or ()
    job = changed.definitions.resolve_job_def("backfill_stale")
    done = job.execute_in_process(
        request.run_config, instance=changed.instance, tags=dict(request.tags)
    )
    assert done.success
    assert pending(changed) == set(KEYS)
