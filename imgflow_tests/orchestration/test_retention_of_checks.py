"""The retention of asset checks: a bounded history, which says what it said before."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from imgflow.service.ingest import QUIET
from imgflow_tests.orchestration.project import Project
from imgflow_tests.orchestration.retained import NOTHING, age, clean, events
from imgflow_tests.orchestration.test_way import put
from imgflow_tests.orchestration.ui_state import ui_state
from imgflow_tests.pictures import jpeg

EVALUATION = "ASSET_CHECK_EVALUATION"


def audit(project: Project) -> str:
    job = project.definitions.resolve_job_def("audit")
    result = job.execute_in_process(QUIET, instance=project.instance)
    assert result.success
    return result.run_id


def executions(project: Project) -> list[tuple[Any, ...]]:
    """Asset, check, partition, run and event, in the order of their ids."""
    with project.catalog.engine.connect() as connection:
        rows = connection.execute(
            sa.text(
                "SELECT asset_key, check_name, partition, run_id, evaluation_event_storage_id"
                " FROM asset_check_executions ORDER BY id"
            )
        )
        return [tuple(row) for row in rows]


@pytest.fixture
def checked(project: Project) -> Project:
    """Photographs of which one lost its thumbnail and has it again, another lost it for good."""
    for number in range(3):
        put(project, f"{number}.jpg", jpeg(seed=number))
    (run,) = project.run_requests(project.tick())
    assert run.success
    for key in ("0.jpg", "1.jpg"):
        image = project.catalog.by_keys([key])[key]
        project.outputs.delete([image.outputs["thumbnail"]["name"]])
    audit(project)
    audit(project)
    project.materialize(["0.jpg"], force=True)
    audit(project)
    audit(project)
    return project


def test_old_evaluations_go_and_every_check_says_what_it_said(checked: Project) -> None:
    before = ui_state(checked)
    history = len(executions(checked))
    freed = clean(checked)
    assert freed.evaluations > 20
    assert ui_state(checked) == before
    left = executions(checked)
    assert len(left) == history - freed.evaluations
    newest = [row[:3] for row in left]
    assert len(newest) == len({*newest}), "one of each check and partition"
    assert {row[2] for row in left} == {None, "0.jpg", "1.jpg"}
    assert {row[4] for row in left} <= {row[0] for row in events(checked, EVALUATION)}
    assert clean(checked) == NOTHING


def test_runs_of_the_audit_go_but_for_the_one_that_checks_lead_to(checked: Project) -> None:
    newest = checked.runs()[0]
    assert newest.job_name == "audit"
    clean(checked)
    audits = [run.run_id for run in checked.runs() if run.job_name == "audit"]
    assert newest.run_id in audits
    assert len(audits) < 4
    kept = {row[3] for row in executions(checked)}
    assert kept <= {run.run_id for run in checked.runs()}


def test_evaluations_that_are_young_or_were_superseded_lately_stay(checked: Project) -> None:
    rows = executions(checked)
    job = checked.definitions.resolve_job_def("retention")
    assert job.execute_in_process(QUIET, instance=checked.instance).success
    assert executions(checked) == rows
    age(checked, days=31)
    audit(checked)
    newest = len(executions(checked)) - len(rows)
    assert job.execute_in_process(QUIET, instance=checked.instance).success
    left = executions(checked)
    old = [row[:3] for row in left[:-newest]]
    assert len(old) == len({*old}) < len(rows)


def test_an_audit_that_failed_is_still_the_last_of_its_checks(
    checked: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("no answer")

    with monkeypatch.context() as broken:
        broken.setattr("imgflow.orchestration.checks.asset_checks.Examination.images", refuse)
        job = checked.definitions.resolve_job_def("audit")
        result = job.execute_in_process(QUIET, instance=checked.instance, raise_on_error=False)
    assert not result.success
    before = ui_state(checked)
    assert clean(checked).evaluations > 0
    assert ui_state(checked) == before
