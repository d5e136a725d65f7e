"""People are told of failed runs once each, however their channels and the sensor fare."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from imgflow.advice import ADVICE
from imgflow.orchestration.alerts import failures as failures_module
from imgflow.orchestration.alerts.failures import (
    FailedRun,
    Ledger,
    Told,
    message_of,
    newest_failure,
    title_of,
)
from imgflow_tests.orchestration.project import Project
from imgflow_tests.pictures import jpeg
from imgflow_tests.receivers import Webhook, mailbox, webhook

BROKEN = b"no picture at all"

# Dagster retries a run whose process died unless it is told not to.
LAST = {"dagster/max_retries": "0"}


@pytest.fixture(autouse=True)
def _events_are_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures_module, "SETTLE_SECONDS", 0.0)


@pytest.fixture
def hook() -> Iterator[Webhook]:
    with webhook() as made:
        yield made


class Sensor:
    """The sensor of a project, with a cursor that lives on between its ticks."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.cursor: str | None = None
        self.said = ""

    def tick(self) -> str:
        context = dg.build_sensor_context(instance=self.project.instance, cursor=self.cursor)
        result = self.project.definitions.resolve_sensor_def("failures")(context)
        assert isinstance(result, dg.SensorResult)
        assert not result.run_requests
        assert isinstance(result.skip_reason, dg.SkipReason)
        self.cursor, self.said = result.cursor, str(result.skip_reason.skip_message)
        return self.said

    def wait(self) -> None:
        """Let every pause be over."""
        ledger = Ledger.from_cursor(self.cursor)
        assert ledger is not None
        for told in ledger.channels.values():
            told.sent_at = told.not_before = 0.0
        self.cursor = ledger.cursor()


def put(project: Project, **files: bytes) -> None:
    for name, data in files.items():
        Path(project.stores.locations()[0].folder / name.replace("_", ".")).write_bytes(data)


def test_a_batch_is_one_message_with_every_image_its_reason_and_its_fix(
    make_project: Callable[..., Project], hook: Webhook
) -> None:
    project = make_project(alert_urls=hook.url, dagster_url="https://dagster.example.org")
    sensor = Sensor(project)
    assert sensor.tick() == "no run has failed since the last tick."
    put(project, good_jpg=jpeg(40, 30), a_jpg=BROKEN, b_png=jpeg(40, 30)[:300])
    project.ingest()
    sensor.tick()
    (message,) = hook.messages
    assert message["title"] == "imgflow: a run failed (images: 2 rejected)"
    text = message["message"]
    (run,) = project.runs()
    advice = ADVICE["not_an_image"]
    assert f"https://dagster.example.org/runs/{run.run_id}" in text
    assert "process_photos, asked for by `imgflow ingest`" in text
    assert "1 processed, 0 unchanged, 2 rejected" in text
    assert f"a.jpg: The file of 17 bytes is not a picture: it looks like a text. {advice}" in text
    assert ADVICE["truncated"] in text
    assert "Retrying won't help until the file or a setting changes" in text
    assert "/?state=rejected" in text
    sensor.tick()
    assert len(hook.messages) == 1, "nobody is told twice"


def test_what_fails_within_the_pause_is_in_the_next_message(
    make_project: Callable[..., Project], hook: Webhook
) -> None:
    project = make_project(alert_urls=hook.url)
    sensor = Sensor(project)
    sensor.tick()
    for number in range(3):
        put(project, **{f"bad{number}_jpg": BROKEN + bytes([number])})
        project.ingest()
        sensor.tick()
    assert [message["title"] for message in hook.messages] == [
        "imgflow: a run failed (images: 1 rejected)"
    ]
    assert "is told later of: imgflow: 2 runs failed (images: 2 rejected)" in sensor.said
    sensor.wait()
    sensor.tick()
    assert hook.messages[1]["title"] == "imgflow: 2 runs failed (images: 2 rejected)"
    assert "bad0" not in hook.messages[1]["message"]
    assert "bad1.jpg" in hook.messages[1]["message"]
    assert "bad2.jpg" in hook.messages[1]["message"]


def test_a_channel_that_is_down_gets_it_later_and_the_others_only_once(
    make_project: Callable[..., Project], hook: Webhook
) -> None:
    hook.status = 500
    with mailbox() as box:
        project = make_project(alert_urls=f"{hook.url}, {box.url}", alert_minutes=0)
        sensor = Sensor(project)
        sensor.tick()
        put(project, a_jpg=BROKEN)
        project.ingest()
        assert "channel 1 (json) did not take the message: Failed to send" in sensor.tick()
        assert "channel 2 (mailto) was told" in sensor.said
        sensor.tick()
        assert len(hook.requests) == 1, "it is not tried again at once"
        put(project, b_jpg=BROKEN + b"2")
        project.ingest()
        hook.status = 200
        sensor.wait()
        sensor.tick()
    (message,) = hook.messages
    assert "a.jpg" in message["message"]
    assert "b.jpg" in message["message"]
    first, second = (str(mail.get_content()) for mail in box.messages)
    assert "a.jpg" in first
    assert "a.jpg" not in second
    assert "b.jpg" in second
    assert "s3cr3t" not in str(sensor.cursor) + sensor.said


def test_a_channel_that_hangs_does_not_hold_the_tick(
    make_project: Callable[..., Project], hook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imgflow.settings.channels.SEND_SECONDS", 0.5)
    hook.status = 0
    project = make_project(alert_urls=hook.url)
    sensor = Sensor(project)
    sensor.tick()
    put(project, a_jpg=BROKEN)
    project.ingest()
    assert "did not answer within 0.5 seconds" in sensor.tick()


def test_a_run_whose_process_died_is_told_of_too(
    make_project: Callable[..., Project], hook: Webhook
) -> None:
    project = make_project(alert_urls=hook.url)
    sensor = Sensor(project)
    sensor.tick()
    run = project.instance.create_run_for_job(
        project.definitions.resolve_job_def("process_photos"),
        tags={"dagster/backfill": "abcd", **LAST},
    )
    project.instance.report_run_failed(run, "Detected run worker status FAILED.")
    sensor.tick()
    (message,) = hook.messages
    assert message["title"] == "imgflow: a run failed"
    assert "asked for by the backfill abcd" in message["message"]
    assert "Detected run worker status FAILED." in message["message"]
    assert "asked for again by itself" in message["message"]


def test_a_run_that_is_found_dead_twice_is_told_of_once(
    make_project: Callable[..., Project], hook: Webhook
) -> None:
    project = make_project(alert_urls=hook.url, alert_minutes=0)
    sensor = Sensor(project)
    sensor.tick()
    run = project.instance.create_run_for_job(
        project.definitions.resolve_job_def("process_photos"), tags=LAST
    )
    project.instance.report_run_failed(run, "its process was killed")
    project.instance.report_run_failed(run, "it ended without a word")
    sensor.tick()
    project.instance.report_run_failed(run, "and once more")
    sensor.tick()
    (message,) = hook.messages
    assert message["title"] == "imgflow: a run failed"
    assert "its process was killed" in message["message"]


def test_runs_of_others_and_runs_that_dagster_retries_are_not_told_of(
    make_project: Callable[..., Project], hook: Webhook
) -> None:
    project = make_project(alert_urls=hook.url)
    sensor = Sensor(project)
    sensor.tick()

    @dg.op
    def fails() -> None:
        raise ValueError("of another project")

    @dg.job
    def another() -> None:
        fails()

    another.execute_in_process(instance=project.instance, raise_on_error=False)
    run = project.instance.create_run_for_job(
        project.definitions.resolve_job_def("process_photos"), tags={"dagster/will_retry": "true"}
    )
    project.instance.report_run_failed(run, "gone")
    assert sensor.tick() == "no run has failed since the last tick."
    assert not hook.requests


def test_a_new_installation_and_a_new_channel_are_told_of_no_past(
    make_project: Callable[..., Project], hook: Webhook
) -> None:
    project = make_project()
    put(project, a_jpg=BROKEN)
    project.ingest()
    sensor = Sensor(project)
    sensor.tick()
    assert Ledger.from_cursor(sensor.cursor) == Ledger(newest_failure(project.instance))
    put(project, b_jpg=BROKEN + b"2")
    project.ingest()
    assert sensor.tick() == "1 failed runs logged."
    sensor.project = make_project(alert_urls=hook.url)
    sensor.tick()
    put(project, c_jpg=BROKEN + b"3")
    project.ingest()
    sensor.tick()
    (message,) = hook.messages
    assert "c.jpg" in message["message"]
    assert "a.jpg" not in message["message"]
    assert "b.jpg" not in message["message"]


def test_a_cursor_of_nonsense_begins_anew(make_project: Callable[..., Project]) -> None:
    sensor = Sensor(make_project())
    for cursor in ("{", "[]", '{"logged": "x", "channels": {}}', '{"channels": 3}'):
        sensor.cursor = cursor
        assert sensor.tick() == "no run has failed since the last tick."


def test_a_message_stays_bounded_whatever_failed() -> None:
    text = "\n".join(f"  {number}.jpg: {'x' * 5_000}" for number in range(60))
    runs = [
        FailedRun(str(n), "process_photos", "a person", 0, {"rejected": 60}, text)
        for n in range(200)
    ]
    message = message_of(runs, dagster_url="http://d", gallery_url="http://g")
    assert len(message) < 250_000
    assert all(f"http://d/runs/{n}" in message for n in range(200))
    assert "and 35 lines more" in message
    assert title_of(runs) == "imgflow: 200 runs failed (images: 12000 rejected)"


def test_pauses_grow_to_an_hour_and_end_with_a_message() -> None:
    told = Told(5)
    pauses = []
    for _ in range(10):
        told.refused(1_000.0)
        pauses.append(told.not_before - 1_000)
    assert pauses[:4] == [60, 120, 240, 480]
    assert pauses[-1] == 3_600
    assert not told.is_due(1_100, 0)
    told.took(9, 1_100)
    assert (told.after, told.attempts) == (9, 0)
    assert not told.is_due(1_100 + 599, 10)
    assert told.is_due(1_100 + 600, 10)


def test_nobody_is_told_again_of_rejected_images_that_a_run_had_to_cover(
    make_project: Callable[..., Project], hook: Webhook
) -> None:
    project = make_project(runs=1, alert_urls=hook.url)
    sensor = Sensor(project)
    put(project, a_jpg=jpeg(seed=1), b_jpg=BROKEN, c_jpg=jpeg(seed=2))
    project.run_requests(project.tick())
    sensor.tick()
    put(project, a_jpg=jpeg(90, 60, seed=3), c_jpg=jpeg(90, 60, seed=4))
    (run,) = project.run_requests(project.tick())
    assert not run.success, "b.jpg stays red"
    assert "1 failed runs logged" in sensor.tick()
    assert "told" not in sensor.said
    assert hook.messages == []
    put(project, b_jpg=b"another that is none", d_jpg=BROKEN)
    project.run_requests(project.tick())
    sensor.tick()
    (message,) = hook.messages
    assert "d.jpg" in message["message"]
