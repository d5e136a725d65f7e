"""What `imgflow doctor` says of Dagster and the queue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from imgflow.doctor import dagster_checks, database_checks
from imgflow.doctor.dagster_checks import check_dagster
from imgflow.doctor.store_checks import check_queue
from imgflow.errors import Trouble
from imgflow.settings.variables import Settings
from imgflow_tests.orchestration.project import Project
from imgflow_tests.orchestration.test_way import put
from imgflow_tests.pictures import jpeg


def test_a_queue_that_answers_keeps_its_messages_for_the_sensor(
    make_settings: Callable[..., Settings], inbox: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    inbox.send("a message")
    (finding,) = check_queue(make_settings(sqs_queue_url=inbox.url))
    assert finding.state == "ok"
    assert inbox.counts() == (1, 0)
    with pytest.raises(Trouble, match="create it"):
        list(check_queue(make_settings(sqs_queue_url=f"{inbox.url}-none")))


def test_runs_that_never_start_and_a_daemon_that_is_silent_are_named(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(process: str | None = None) -> dict[str, tuple[str, str]]:
        lines = check_dagster(project.settings, process)
        return {part: (state, text) for part, state, text in lines}

    put(project, "a.jpg", jpeg())
    (request,) = project.tick().run_requests or ()
    job = project.definitions.resolve_job_def(str(request.job_name))
    run = project.instance.create_run_for_job(job, tags=dict(request.tags))
    assert said()["runs"] == ("ok", "1 queued or going on")
    assert said()["daemon"][0] == "notice", "nobody said that it should run"
    assert said("4711")["daemon"][0] == "wrong"
    monkeypatch.setattr(dagster_checks, "START_SECONDS", -1.0)
    state, text = said()["runs"]
    assert (state, run.run_id in text) == ("wrong", True)
    project.instance.report_run_canceled(run)
    assert said()["runs"] == ("ok", "none is going on")


def test_clocks_that_differ_are_named(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    now = database_checks.time.time
    monkeypatch.setattr(database_checks.time, "time", lambda: now() - 60)
    found = {finding.part: finding for finding in database_checks.check_database(project.settings)}
    assert found["clock"].state == "wrong"
    assert "+60 seconds" in found["clock"].text
