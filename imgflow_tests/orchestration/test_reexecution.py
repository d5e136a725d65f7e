"""Re-executing a failed run, as the UI's button and Dagster's own retries do it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg

from imgflow.assembly import build_definitions
from imgflow.orchestration.runs.execute import RESUME_TAG
from imgflow.service.ingest import QUIET
from imgflow.settings.variables import load_settings
from imgflow_tests.orchestration.project import Project
from imgflow_tests.pictures import jpeg


def process_photos(_home: str) -> Any:
    """The job by the environment; Dagster keeps it by the arguments."""
    return build_definitions(load_settings(_env_file=None)).resolve_job_def("process_photos")


def reexecute(
    project: Project, run_id: str, *, from_failure: bool, force: bool = False
) -> dg.DagsterRun:
    options = (
        dg.ReexecutionOptions.from_failure(run_id, project.instance)
        if from_failure
        else dg.ReexecutionOptions(run_id)
    )
    parent = project.instance.get_run_by_id(run_id)
    assert parent is not None
    config = {"ops": {"photo_outputs": {"config": {"force": force}}}}
    done = dg.execute_job(
        dg.build_reconstructable_job(__name__, "process_photos", (str(project.settings.home),)),
        instance=project.instance,
        run_config={**QUIET, **config},
        # The UI and the daemon mark it so; the Python API does not.
        tags={**parent.tags, RESUME_TAG: str(from_failure).lower()},
        reexecution_options=options,
    )
    run = project.instance.get_run_by_id(done.run_id)
    assert run is not None
    return run


def failure_text(project: Project, run: dg.DagsterRun) -> str:
    events = project.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    return " ".join(str(event.dagster_event) for event in events)


def put(project: Project, **files: bytes) -> None:
    for name, data in files.items():
        Path(project.stores.locations()[0].folder / f"{name}.jpg").write_bytes(data)


def test_a_run_of_the_sensor_looks_again_at_what_it_rejected_and_leaves_the_others(
    make_project: Callable[..., Project],
) -> None:
    project = make_project(max_pixels=2_000)
    put(project, small=jpeg(40, 30), large=jpeg(80, 60))
    (failed,) = project.run_requests(project.tick())
    assert not failed.success
    written = project.stored()
    make_project(max_pixels=10_000)
    run = reexecute(project, failed.run_id, from_failure=True)
    assert run.status == dg.DagsterRunStatus.SUCCESS
    assert set(project.statuses("photo/thumbnail").values()) == {"green"}
    assert {name: project.stored()[name] for name in written} == written


def test_a_run_that_goes_on_does_not_force_again_what_the_failed_one_made(
    project: Project,
) -> None:
    put(project, bad=b"no picture", good=jpeg(40, 30))
    project.ingest()
    failed = project.materialize(["bad.jpg", "good.jpg"], force=True)
    assert not failed.success

    def made_by() -> str | None:
        return project.catalog.by_keys(["good.jpg"])["good.jpg"].run_id

    assert made_by() == failed.run_id
    resumed = reexecute(project, failed.run_id, from_failure=True, force=True)
    assert made_by() == failed.run_id
    reexecute(project, resumed.run_id, from_failure=True, force=True)
    assert made_by() == failed.run_id, "nor what was made before that"
    whole = reexecute(project, failed.run_id, from_failure=False, force=True)
    assert made_by() == whole.run_id, failure_text(project, whole)
