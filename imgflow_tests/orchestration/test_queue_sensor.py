"""What notifications from a real queue lead to; moto's also sends those of its own S3."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import boto3
import dagster as dg
import pytest
from botocore.exceptions import ClientError

from imgflow.assembly import build_definitions
from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.catalog.postgres.sensing import UnreadableMessage, UnreadableMessages
from imgflow.errors import SettingsError
from imgflow.orchestration.resources import QueueResource
from imgflow.settings.variables import Settings
from imgflow.status import read_status
from imgflow.store.objects import SourceObject
from imgflow.store.s3.source_bucket import S3Source
from imgflow_tests.orchestration.messages import (
    eventbridge,
    raw_record,
    record,
    s3_event,
    s3_test_event,
    sns,
)
from imgflow_tests.orchestration.queues import Inbox, QueueProject, Uploads, WaitlessQueue, said
from imgflow_tests.pictures import jpeg


@pytest.fixture
def project(queue_project: QueueProject) -> QueueProject:
    return queue_project


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
        upload = SourceObject(key, "e", None, 1, datetime(2026, 8, 1, tzinfo=UTC))
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
    monkeypatch.setattr("imgflow.catalog.postgres.sensing.MOST_MESSAGES", 3)
    messages.keep([UnreadableMessage(str(number), "r", b"") for number in range(2, 9)])
    assert [message.message_id for message in messages.newest(9)] == ["8", "7", "6"]
    other = UnreadableMessages(catalog.engine, "file:///other/")
    other.keep([UnreadableMessage("1", "r", b"")])
    assert (messages.count(), other.count()) == (3, 1)


def test_a_tick_takes_a_bounded_number_of_messages(project: QueueProject, inbox: Inbox) -> None:
    inbox.send(*(s3_test_event() for _ in range(25)))
    project.queue = WaitlessQueue(url=inbox.url, most_messages=15)
    assert "20 messages" in said(project.take())
    assert inbox.counts() == (5, 0)
    assert "5 messages" in said(project.take())
    assert said(project.take()) == "No messages."


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
