"""Notifications from a real queue: moto's, which also sends those of its own S3.

The bucket of hand-made messages is that of the S3 server of all other tests, since moto takes no
key with a newline.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timezone
from threading import Barrier
from typing import Any

import boto3
import dagster as dg
import pytest
from botocore.exceptions import ClientError
from moto.server import ThreadedMotoServer

from imgflow.catalog.connecting import make_engine
from imgflow.catalog.postgres import PostgresCatalog
from imgflow.catalog.rows import Announcement
from imgflow.catalog.unreadable import UnreadableMessage, UnreadableMessages
from imgflow.definitions import build_definitions, build_families, build_resources
from imgflow.errors import SettingsError, Trouble
from imgflow.orchestration.event_log import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
)
from imgflow.orchestration.queue import Message, Queue
from imgflow.orchestration.queue_sensor import Removal, notifications_sensor
from imgflow.orchestration.requests import Requests, request_batches
from imgflow.orchestration.resources import QueueResource
from imgflow.settings import Settings
from imgflow.status import read_status
from imgflow.store.looking import THREADS
from imgflow.store.objects import SourceObject
from imgflow.store.s3 import S3Source
from imgflow_tests.ceph import free_port
from imgflow_tests.orchestration.messages import (
    eventbridge,
    raw_record,
    record,
    s3_event,
    s3_test_event,
    sns,
)
from imgflow_tests.orchestration.project import Project
from imgflow_tests.pictures import jpeg


class WaitlessQueue(QueueResource):
    """An empty queue answers at once."""

    wait_seconds: int = 0


@dataclass
class Inbox:
    """A queue, as a sender and an operator see it."""

    client: Any
    url: str

    def send(self, *bodies: str) -> None:
        for body in bodies:
            self.client.send_message(QueueUrl=self.url, MessageBody=body)

    def redeliver_after_a_second(self) -> None:
        self.client.set_queue_attributes(QueueUrl=self.url, Attributes={"VisibilityTimeout": "1"})

    def counts(self) -> tuple[int, int]:
        """Messages that wait, and those that someone has received and not deleted."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.client.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)
        return int(found["Attributes"][names[0]]), int(found["Attributes"][names[1]])

    def arn(self) -> str:
        found = self.client.get_queue_attributes(QueueUrl=self.url, AttributeNames=["QueueArn"])
        return str(found["Attributes"]["QueueArn"])


@pytest.fixture(scope="module")
def moto() -> Iterator[dict[str, str]]:
    """Arguments of a client of moto."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield {
        "endpoint_url": f"http://{host}:{port}",
        "aws_access_key_id": "test",
        "aws_secret_access_key": "test",
        "region_name": "us-east-1",
    }
    server.stop()


@pytest.fixture
def inbox(moto: dict[str, str]) -> Inbox:
    client = boto3.client("sqs", **moto)
    return Inbox(client, client.create_queue(QueueName=f"q-{uuid.uuid4().hex}")["QueueUrl"])


@dataclass
class QueueProject(Project):
    """A project with a queue."""

    removal: Removal | None = None
    queue: QueueResource = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.queue = WaitlessQueue(url=self.settings.sqs_queue_url)

    def take(self) -> dg.SensorResult:
        """One evaluation of the queue's sensor, as the daemon does it; nothing is launched."""
        resources = {**build_resources(self.settings), "queue": self.queue}
        context = dg.build_sensor_context(instance=self.instance, resources=resources)
        sensor = self.definitions.resolve_sensor_def("notifications")
        if self.removal is not None:
            sensor = notifications_sensor(
                build_families(self.settings),
                [self.definitions.resolve_job_def(name) for name in ("process_photos",)],
                batch_size=9,
                removal=self.removal,
            )
        result = sensor(context)
        assert isinstance(result, dg.SensorResult)
        return result

    def states(self) -> dict[str, str]:
        images = self.catalog.page(limit=1_000)
        images += self.catalog.page(limit=1_000, state="deleted")
        return {image.key: image.state for image in images}

    def unreadable(self) -> UnreadableMessages:
        return UnreadableMessages(self.catalog.engine, self.catalog.source)


@pytest.fixture
def project(
    bucket: str,
    inbox: Inbox,
    make_settings: Callable[..., Settings],
    instance: dg.DagsterInstance,
) -> QueueProject:
    settings = make_settings(
        source_url=f"s3://{bucket}/in",
        output_url=f"s3://{bucket}/in/made",
        sqs_queue_url=inbox.url,
    )
    return QueueProject(settings, instance)


@dataclass
class Uploads:
    """The bucket as who uploads to it sees it, and the records that tell of what happened."""

    client: Any
    bucket: str

    def put(self, key: str, seed: int = 0) -> str:
        """Put a picture there, without a word to the queue, and return its ETag."""
        answer = self.client.put_object(Bucket=self.bucket, Key=key, Body=jpeg(seed=seed))
        return str(answer["ETag"]).strip('"')

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=key)

    def created(self, key: str, **values: Any) -> dict[str, Any]:
        return record(key, bucket=self.bucket, **values)

    def removed(self, key: str, **values: Any) -> dict[str, Any]:
        return record(key, "ObjectRemoved:Delete", bucket=self.bucket, **values)


@pytest.fixture
def uploads(s3: Any, bucket: str) -> Uploads:
    return Uploads(s3, bucket)


def said(result: dg.SensorResult) -> str:
    """Why a tick asked for nothing."""
    assert isinstance(result.skip_reason, dg.SkipReason)
    return str(result.skip_reason.skip_message)


def test_uploads_removals_and_the_test_event_of_a_real_bucket(
    moto: dict[str, str],
    inbox: Inbox,
    make_settings: Callable[..., Settings],
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": moto["endpoint_url"],
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    s3 = boto3.client("s3", **moto)
    name = f"t-{uuid.uuid4().hex[:20]}"
    s3.create_bucket(Bucket=name)
    s3.put_bucket_notification_configuration(
        Bucket=name,
        NotificationConfiguration={
            "QueueConfigurations": [
                {"QueueArn": inbox.arn(), "Events": ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]}
            ]
        },
    )
    project = QueueProject(
        make_settings(source_url=f"s3://{name}/in", sqs_queue_url=inbox.url), instance
    )
    keys = ["plain.jpg", "a b+c%2B 100%.jpg", "sub/ümläut 日本語.jpg"]
    for seed, key in enumerate(keys):
        s3.put_object(Bucket=name, Key=f"in/{key}", Body=jpeg(seed=seed))

    (run,) = project.run_requests(project.take())

    assert run.success
    assert project.states() == dict.fromkeys(keys, "ready")
    assert inbox.counts() == (0, 0)
    s3.put_object(Bucket=name, Key="in/late.jpg", Body=jpeg(seed=9))
    s3.delete_object(Bucket=name, Key="in/late.jpg")
    s3.delete_object(Bucket=name, Key="in/plain.jpg")
    result = project.take()
    assert not result.run_requests
    assert "3 messages: 0 images new or changed, 2 gone, 1 superseded ignored." in str(
        result.skip_reason
    )
    assert inbox.counts() == (0, 0)


def test_ten_records_of_one_message_become_one_run(
    project: QueueProject, inbox: Inbox, uploads: Uploads
) -> None:
    keys = [f"{number}.jpg" for number in range(10)]
    for key in keys:
        uploads.put(f"in/{key}")
    inbox.send(s3_event(*(uploads.created(f"in/{key}") for key in keys)))
    result = project.take()
    (run,) = project.run_requests(result)
    assert run.success
    assert project.states() == dict.fromkeys(keys, "ready")
    (request,) = result.dynamic_partitions_requests or ()
    assert list(request.partition_keys) == keys


def test_odd_keys_come_through_every_wrapper(
    project: QueueProject, inbox: Inbox, bucket: str, uploads: Uploads
) -> None:
    wrapped: dict[str, Callable[[str], str]] = {
        "plus+ and blank.jpg": lambda key: s3_event(record(key, bucket=bucket)),
        "100% %2B.jpg": lambda key: sns(s3_event(record(key, bucket=bucket))),
        "ümläut/日本語/😀.jpg": lambda key: eventbridge(key, bucket=bucket),
        "ceph+%2B 1.jpg": lambda key: s3_event(record(key, bucket=bucket, source="ceph:s3")),
        "encoded %20.jpg": lambda _: s3_event(
            raw_record("in%2Fencoded%20%2520.jpg", bucket=bucket)
        ),
        "a//b&c=d#e.jpg": lambda key: sns(eventbridge(key, bucket=bucket)),
    }
    for key, wrap in wrapped.items():
        uploads.put(f"in/{key}")
        inbox.send(wrap(f"in/{key}"))
    project.take()
    assert set(project.states()) == set(wrapped)
    assert inbox.counts() == (0, 0)


def test_a_key_with_a_newline_is_seen_too(
    project: QueueProject, inbox: Inbox, uploads: Uploads, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "new\nline.jpg"
    try:
        uploads.put(f"in/{key}")
    except ClientError:  # moto's server takes no such key; CI tests against Ceph
        upload = SourceObject(key, "e", None, 1, datetime(2026, 8, 1, tzinfo=timezone.utc))
        monkeypatch.setattr(S3Source, "stat", lambda *_: upload)
    inbox.send(s3_event(uploads.created(f"in/{key}")))
    project.take()
    assert list(project.states()) == [key]


def test_what_is_none_of_the_source_is_counted_and_leaves_no_row(
    project: QueueProject, inbox: Inbox, s3: Any, bucket: str, uploads: Uploads
) -> None:
    s3.put_object(Bucket=bucket, Key="in/marker/", Body=b"")
    inbox.send(
        s3_test_event(bucket),
        s3_event(record("in/a.jpg", bucket="another-bucket"), uploads.created("in/sub/", size=0)),
        s3_event(
            uploads.created("inside.jpg"),
            uploads.created("in/made/thumbnail/a.jpg"),
            uploads.created("in/marker/"),
        ),
        s3_event(record("in/a.jpg", "ObjectTagging:Put", bucket=bucket)),
    )
    result = project.take()
    assert said(result) == (
        "4 messages: 0 images new or changed, 0 gone, 1 ObjectTagging:Put ignored, 1 of another "
        "bucket ignored, 1 of folder markers ignored, 1 of outputs ignored, 1 outside the prefix "
        "ignored, 1 s3:TestEvent ignored."
    )
    assert project.states() == {}
    assert inbox.counts() == (0, 0)


def test_what_the_store_has_now_counts_and_not_what_a_late_message_says(
    project: QueueProject, inbox: Inbox, uploads: Uploads
) -> None:
    old, new = uploads.put("in/a.jpg", seed=1), uploads.put("in/a.jpg", seed=2)
    inbox.send(s3_event(uploads.created("in/a.jpg", eTag=new, sequencer="0B")))
    project.run_requests(project.take())
    before = project.rows()
    assert project.catalog.by_keys(["a.jpg"])["a.jpg"].etag == new
    # The earlier upload, and a deletion that came before the later one, are told late and twice.
    stale = s3_event(uploads.created("in/a.jpg", eTag=old, sequencer="09"))
    inbox.send(stale, stale, s3_event(uploads.removed("in/a.jpg", sequencer="0A")), stale)
    result = project.take()
    assert not result.run_requests
    assert project.rows() == before
    assert inbox.counts() == (0, 0)


def test_the_same_message_again_changes_nothing(
    project: QueueProject, inbox: Inbox, uploads: Uploads
) -> None:
    uploads.put("in/a.jpg")
    body = s3_event(uploads.created("in/a.jpg"))
    inbox.send(body, body)
    (run,) = project.run_requests(project.take())
    assert run.success
    before, stored = project.rows(), project.stored()
    inbox.send(body)
    assert not project.take().run_requests
    assert (project.rows(), project.stored()) == (before, stored)


def test_an_upload_that_is_gone_before_it_is_read_is_not_waited_for(
    project: QueueProject, inbox: Inbox, uploads: Uploads
) -> None:
    uploads.put("in/a.jpg")
    inbox.send(s3_event(uploads.created("in/a.jpg")))
    assert project.take().run_requests
    uploads.delete("in/a.jpg")
    inbox.send(
        s3_event(uploads.removed("in/a.jpg")), s3_event(uploads.created("in/never-seen.jpg"))
    )
    assert "2 gone" in said(project.take())
    assert project.states() == {"a.jpg": "deleted"}


def test_the_removal_path_is_told_the_keys_that_are_gone_before_the_message_is_deleted(
    project: QueueProject, inbox: Inbox, uploads: Uploads
) -> None:
    uploads.put("in/still-there.jpg")
    told: list[tuple[list[str], tuple[int, int]]] = []
    project.removal = lambda _rows, _stores: lambda keys: told.append((list(keys), inbox.counts()))
    inbox.send(
        s3_event(
            uploads.removed("in/b.jpg"),
            uploads.removed("in/still-there.jpg"),
            uploads.removed("in/a.jpg"),
        ),
    )
    project.take()
    assert told == [(["a.jpg", "b.jpg"], (0, 1))]
    assert inbox.counts() == (0, 0)


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


def test_unreadable_messages_go_to_a_table_that_operators_see(
    project: QueueProject, inbox: Inbox, uploads: Uploads
) -> None:
    uploads.put("in/a.jpg")
    inbox.send(
        "garbage",
        s3_event(uploads.created("in/a.jpg"), raw_record("in/%FF.jpg")),
        "x" * 100_000,
    )
    result = project.take()
    assert len(result.run_requests or ()) == 1, "the readable record of a message counts"
    assert inbox.counts() == (0, 0)
    kept = {message.body[:4]: message for message in project.unreadable().newest(9)}
    assert len(kept) == project.unreadable().count() == 3
    assert kept["garb"].body == "garbage"
    assert kept["garb"].reason.startswith("no JSON")
    assert "record 2: key 'in/%FF.jpg' is not UTF-8" in kept['{"Re'].reason
    assert kept["xxxx"].body == "x" * 65_536
    status = read_status(project.catalog)
    assert status.unreadable == status.as_json()["unreadable_messages"] == 3
    assert status.newest_unreadable is not None

    inbox.send("{}")
    sentence = said(project.take())
    newest = project.unreadable().newest(1)[0]
    assert f"Message {newest.message_id} could not be read: JSON, but neither" in sentence


def test_odd_bytes_and_repeated_messages_are_kept_once_and_in_bounded_number(
    catalog: PostgresCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = UnreadableMessages(catalog.engine, catalog.source)
    messages.keep([UnreadableMessage("1", "odd \0 \ud800", b"a\0\xff" + b"\xff" * 65_536)] * 2)
    messages.keep([UnreadableMessage("1", "again", b"")])
    (kept,) = messages.newest(9)
    assert kept.reason == "odd \ufffd ?"
    assert kept.body.startswith("a\ufffd\ufffd")
    assert len(kept.body.encode()) <= 65_536
    monkeypatch.setattr("imgflow.catalog.unreadable.MOST_MESSAGES", 3)
    messages.keep([UnreadableMessage(str(number), "r", b"") for number in range(2, 9)])
    assert [message.message_id for message in messages.newest(9)] == ["8", "7", "6"]
    other = UnreadableMessages(catalog.engine, "file:///other/")
    other.keep([UnreadableMessage("1", "r", b"")])
    assert (messages.count(), other.count()) == (3, 1)


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


def test_a_tick_takes_a_bounded_number_of_messages(project: QueueProject, inbox: Inbox) -> None:
    inbox.send(*(s3_test_event() for _ in range(25)))
    project.queue = WaitlessQueue(url=inbox.url, most_messages=15)
    assert "20 messages" in said(project.take())
    assert inbox.counts() == (5, 0)
    assert "5 messages" in said(project.take())
    assert said(project.take()) == "No messages."


def test_a_queue_that_does_not_exist_is_a_skip_with_the_mend(project: QueueProject) -> None:
    project.queue = WaitlessQueue(url=f"{project.settings.sqs_queue_url}-wrong")
    reason = said(project.take())
    assert "NonExistentQueue; create it, or correct IMGFLOW_SQS_QUEUE_URL" in reason


def test_a_queue_that_does_not_answer_is_a_skip_that_names_it(project: QueueProject) -> None:
    url = f"http://127.0.0.1:{free_port()}/1/away"
    project.queue = WaitlessQueue(url=url)
    assert said(project.take()).startswith(f"The queue {url} does not answer (Could not")


def test_a_local_folder_has_no_queue(
    make_settings: Callable[..., Settings], inbox: Inbox, instance: dg.DagsterInstance
) -> None:
    project = QueueProject(make_settings(sqs_queue_url=inbox.url), instance)
    assert "is a folder, of which no queue tells anything" in said(project.take())


def test_the_sensor_exists_only_when_a_queue_is_set(
    make_settings: Callable[..., Settings],
) -> None:
    def sensors(**values: Any) -> set[str]:
        repository = build_definitions(make_settings(**values)).get_repository_def()
        return {sensor.name for sensor in repository.sensor_defs}

    url = "https://sqs.eu-west-1.amazonaws.com/123456789012/uploads"
    assert "notifications" not in sensors()
    assert sensors(sqs_queue_url=url) == {*sensors(sqs_queue_url=""), "notifications"}
    with pytest.raises(SettingsError, match=r"IMGFLOW_SQS_QUEUE_URL.*a queue is written https://"):
        make_settings(sqs_queue_url="arn:aws:sqs:eu-west-1:123456789012:uploads")


@pytest.mark.parametrize(
    ("url", "variable", "endpoint", "region"),
    [
        (
            "https://sqs.eu-west-1.amazonaws.com/1/q",
            "",
            "https://sqs.eu-west-1.amazonaws.com",
            "eu-west-1",
        ),
        (
            "https://eu-west-3.queue.amazonaws.com/1/q",
            "",
            "https://sqs.eu-west-3.amazonaws.com",
            "eu-west-3",
        ),
        ("http://elasticmq:9324/0/q", "", "http://elasticmq:9324", "us-west-2"),
        ("http://elasticmq:9324/0/q", "http://10.0.0.1:1", "http://10.0.0.1:1", "us-west-2"),
    ],
)
def test_requests_go_to_the_queues_own_host_and_not_to_the_s3_server(
    url: str, variable: str, endpoint: str, region: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://ceph:7480")
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", variable)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-2")
    client = QueueResource(url=f"{url}-{uuid.uuid4().hex}").open()._client  # type: ignore[attr-defined]
    assert (client.meta.endpoint_url, client.meta.region_name) == (endpoint, region)


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
            return request_batches(families, catalog, project.instance, batch_size=4)
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
