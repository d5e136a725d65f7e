"""Notifications when something dies, is away, or happens twice at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import dagster as dg
import pytest

from imgflow.assembly import build_families
from imgflow.catalog.database.engine import make_engine
from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.catalog.records import Announcement
from imgflow.errors import Trouble
from imgflow.orchestration.dagster_storage.event_log import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
)
from imgflow.orchestration.runs.requests import Batching, Requests, request_batches
from imgflow.store.objects import THREADS, SourceObject
from imgflow.store.s3.source_bucket import S3Source
from imgflow.store.s3.sqs import Message, Queue
from imgflow_tests.ceph import free_port
from imgflow_tests.orchestration.messages import s3_event
from imgflow_tests.orchestration.queues import Inbox, QueueProject, Uploads, WaitlessQueue, said


@pytest.fixture
def project(queue_project: QueueProject) -> QueueProject:
    return queue_project


def test_a_missing_bucket_does_not_make_its_objects_gone(
    project: QueueProject, inbox: Inbox, uploads: Uploads
) -> None:
    uploads.put("in/a.jpg")
    inbox.send(s3_event(uploads.created("in/a.jpg")))
    project.take()
    uploads.delete("in/a.jpg")
    uploads.client.delete_bucket(Bucket=uploads.bucket)
    inbox.send(s3_event(uploads.removed("in/a.jpg")))
    result = project.take()
    uploads.client.create_bucket(Bucket=uploads.bucket)  # the fixture removes it
    assert "NoSuchBucket" in said(result)
    assert project.states() == {"a.jpg": "pending"}
    assert inbox.counts() == (0, 1), "the message comes again"


class Killed(RuntimeError):
    """The process ends here."""


class Dying:
    """A queue whose receiver dies before anything is deleted."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue

    def receive(self) -> list[Message]:
        return self.queue.receive()

    def delete(self, messages: Sequence[Message]) -> int:
        raise Killed(f"{len(messages)} messages are not deleted")


class DyingQueue(WaitlessQueue):
    def open(self) -> Queue:
        return Dying(super().open())


def test_a_crash_between_commit_and_deletion_does_nothing_twice(
    project: QueueProject, inbox: Inbox, uploads: Uploads
) -> None:
    uploads.put("in/a.jpg")
    inbox.redeliver_after_a_second()
    inbox.send(s3_event(uploads.created("in/a.jpg"), uploads.removed("in/gone.jpg")), "garbage")
    project.queue = DyingQueue(url=inbox.url)
    with pytest.raises(Killed, match="2 messages"):
        project.take()
    assert project.states() == {"a.jpg": "pending"}
    before = project.rows()

    project.queue = WaitlessQueue(url=inbox.url, wait_seconds=5)  # until they come again
    (request,) = project.take().run_requests or ()

    (after,) = project.rows()
    row = project.catalog.by_keys(["a.jpg"])["a.jpg"]
    assert (row.id, row.attempts, row.created_at) == (before[0][0], 1, row.updated_at)
    assert len(after) == len(before[0])
    assert project.unreadable().count() == 1
    assert inbox.counts() == (0, 0)
    assert request.tags[ASSET_PARTITION_RANGE_START_TAG] == "a.jpg"


def test_a_message_is_deleted_only_after_its_rows_are_committed(
    project: QueueProject, inbox: Inbox, monkeypatch: pytest.MonkeyPatch, uploads: Uploads
) -> None:
    def refuse(*_: Any) -> Announcement:
        raise Trouble("The database does not answer.")

    uploads.put("in/a.jpg")
    inbox.redeliver_after_a_second()
    inbox.send(s3_event(uploads.created("in/a.jpg")))
    with monkeypatch.context() as patch:
        patch.setattr(PostgresCatalog, "announce", refuse)
        assert said(project.take()) == "The database does not answer."
    assert project.states() == {}
    project.queue = WaitlessQueue(url=inbox.url, wait_seconds=5)
    assert project.take().run_requests
    assert project.states() == {"a.jpg": "pending"}
    assert inbox.counts() == (0, 0)


def test_nothing_is_received_while_the_database_is_away(
    project: QueueProject, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise Trouble("The database does not answer.")

    inbox.send("garbage")
    monkeypatch.setattr(PostgresCatalog, "check", refuse)
    assert said(project.take()) == "The database does not answer."
    assert inbox.counts() == (1, 0)


def test_a_key_that_cannot_be_looked_at_keeps_its_message_and_not_the_others(
    project: QueueProject, inbox: Inbox, monkeypatch: pytest.MonkeyPatch, uploads: Uploads
) -> None:
    stat = S3Source.stat

    def refuse(source: S3Source, key: str) -> SourceObject | None:
        if key == "bad.jpg":
            raise Trouble(f"{key} could not be asked: 403.")
        return stat(source, key)

    for key in ("good.jpg", "beside.jpg"):
        uploads.put(f"in/{key}")
    monkeypatch.setattr(S3Source, "stat", refuse)
    inbox.send(
        s3_event(uploads.created("in/good.jpg")),
        s3_event(uploads.created("in/bad.jpg"), uploads.created("in/beside.jpg")),
    )
    (request,) = project.take().run_requests or ()
    assert request.tags[ASSET_PARTITION_RANGE_START_TAG] == "beside.jpg"
    assert request.tags[ASSET_PARTITION_RANGE_END_TAG] == "good.jpg"
    assert inbox.counts() == (0, 1)


def test_a_store_that_is_away_is_asked_a_few_times_and_no_message_is_lost(
    project: QueueProject, inbox: Inbox, monkeypatch: pytest.MonkeyPatch, uploads: Uploads
) -> None:
    asked: list[str] = []

    def refuse(_source: S3Source, key: str) -> SourceObject | None:
        asked.append(key)
        raise Trouble("s3://uploads/ could not be asked: 503.")

    monkeypatch.setattr(S3Source, "stat", refuse)
    inbox.send(
        *(s3_event(*(uploads.created(f"in/{n}-{m}.jpg") for m in range(20))) for n in range(10))
    )
    result = project.take()
    assert "200 objects could not be looked at: s3://uploads/" in said(result)
    assert len(asked) <= 2 * THREADS
    assert inbox.counts() == (0, 10)
    assert project.states() == {}


def test_messages_that_the_queue_does_not_delete_come_again_to_no_effect(
    project: QueueProject, inbox: Inbox, uploads: Uploads
) -> None:
    class Refusing(Dying):
        def delete(self, messages: Sequence[Message]) -> int:
            raise Trouble(f"The queue does not delete {len(messages)} messages.")

    class RefusingQueue(WaitlessQueue):
        def open(self) -> Queue:
            return Refusing(super().open())

    uploads.put("in/a.jpg")
    inbox.redeliver_after_a_second()
    inbox.send(s3_event(uploads.created("in/a.jpg")))
    project.queue = RefusingQueue(url=inbox.url)
    (run,) = project.run_requests(project.take())
    assert run.success
    before = project.rows()
    project.queue = WaitlessQueue(url=inbox.url, wait_seconds=5)
    assert "1 messages: 0 images" in said(project.take())
    assert project.rows() == before


def test_a_queue_that_does_not_exist_is_a_skip_with_the_fix(project: QueueProject) -> None:
    project.queue = WaitlessQueue(url=f"{project.settings.sqs_queue_url}-wrong")
    reason = said(project.take())
    assert "NonExistentQueue; create it, or correct IMGFLOW_SQS_QUEUE_URL" in reason


def test_a_queue_that_does_not_answer_is_a_skip_that_names_it(project: QueueProject) -> None:
    url = f"http://127.0.0.1:{free_port()}/1/away"
    project.queue = WaitlessQueue(url=url)
    assert said(project.take()).startswith(f"The queue {url} does not answer (Could not")


def test_several_callers_at_once_never_ask_for_the_same_image(
    project: QueueProject, uploads: Uploads
) -> None:
    for number in range(40):
        uploads.put(f"in/{number:02}.jpg")
    listing = project.source.list_page(None, 1_000)
    project.catalog.announce(listing.objects)
    callers = 4
    barrier = Barrier(callers)

    def ask(_: int) -> Requests:
        engine = make_engine(project.settings.database_url)
        catalog = PostgresCatalog(engine, project.catalog.source)
        barrier.wait()
        try:
            families = build_families(project.settings)
            return request_batches(families, catalog, project.instance, batching=Batching(images=4))
        finally:
            engine.dispose()

    with ThreadPoolExecutor(callers) as threads:
        batches = [
            batch for requests in threads.map(ask, range(callers)) for batch in requests.batches
        ]
    ids = [image_id for batch in batches for image_id in batch.image_ids]
    assert len(ids) == len(set(ids)) == callers * 2 * 4
    partitions = list(project.instance.get_dynamic_partitions("photos"))
    covered = [
        key
        for batch in batches
        for key in partitions[
            partitions.index(batch.range.start) : partitions.index(batch.range.end) + 1
        ]
    ]
    assert len(covered) == len(set(covered)), "nor cover it by the range of another run"


def test_both_sensors_ask_once_for_an_upload_that_both_see(
    project: QueueProject, inbox: Inbox, uploads: Uploads
) -> None:
    uploads.put("in/a.jpg")
    inbox.send(s3_event(uploads.created("in/a.jpg")))
    barrier = Barrier(2)

    def tick(evaluate: Callable[[], dg.SensorResult]) -> int:
        barrier.wait()
        return len(evaluate().run_requests or ())

    with ThreadPoolExecutor(2) as threads:
        assert sum(threads.map(tick, [project.tick, project.take])) == 1
    assert not project.tick().run_requests
    assert not project.take().run_requests
