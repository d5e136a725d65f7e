"""A real `imgflow up` that told in logs and traces what became of two uploads."""

from __future__ import annotations

import json
import signal
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import httpx

from imgflow_tests.api.library import bearer
from imgflow_tests.observability.receiver import Receiver, Span
from imgflow_tests.patience import PATIENCE_SECONDS
from imgflow_tests.pictures import jpeg
from imgflow_tests.running import Running, start, stop, wait_until

Line = dict[str, Any]

CALLER = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"
"""The header `traceparent` of whoever asks the API."""


@dataclass
class Followed:
    """A finished `imgflow up`: its logs, and what was asked of its API."""

    logs: dict[str, list[str]]
    image: Line
    rejected: Line
    headers: list[httpx.Headers]
    spans: list[Span] = field(repr=False)

    def lines(self, name: str, **wanted: object) -> list[Line]:
        parsed = map(json.loads, self.logs[name])
        return [line for line in parsed if wanted.items() <= line.items()]


@contextmanager
def followed_uploads(moto: dict[str, str], folder: Path) -> Iterator[Followed]:
    """A bucket with a queue; one upload that becomes ready and one that is rejected."""
    name = f"t-{uuid.uuid4().hex[:20]}"
    s3, sqs = boto3.client("s3", **moto), boto3.client("sqs", **moto)
    s3.create_bucket(Bucket=name)
    queue = sqs.create_queue(QueueName=name)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]
    s3.put_bucket_notification_configuration(
        Bucket=name,
        NotificationConfiguration={
            "QueueConfigurations": [{"QueueArn": arn["QueueArn"], "Events": ["s3:ObjectCreated:*"]}]
        },
    )
    receiver = Receiver()
    running = start(
        folder,
        IMGFLOW_LOG_FORMAT="json",
        IMGFLOW_SOURCE_URL=f"s3://{name}/in",
        IMGFLOW_OUTPUT_URL=f"s3://{name}/out",
        IMGFLOW_SQS_QUEUE_URL=queue,
        IMGFLOW_SENSOR_SECONDS="3600",  # after the first listing, only messages tell
        IMGFLOW_TRACES="true",
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
        OTEL_BSP_SCHEDULE_DELAY="100",  # milliseconds
        AWS_ENDPOINT_URL=moto["endpoint_url"],
        AWS_ACCESS_KEY_ID="test",
        AWS_SECRET_ACCESS_KEY="test",  # noqa: S106 - of the emulation
        AWS_DEFAULT_REGION="us-east-1",
    )
    try:
        yield follow(running, s3, name, receiver)
    finally:
        stop(running, signal.SIGTERM)
        receiver.close()


def follow(running: Running, s3: Any, bucket: str, receiver: Receiver) -> Followed:
    wait_until(
        lambda: "Ready." in running.output() or running.process.poll() is not None, PATIENCE_SECONDS
    )
    assert running.process.poll() is None, running.output()
    logs = running.home / "logs"
    wait_until(
        lambda: "Sensor arrivals skipped" in (logs / "daemon.log").read_text(), PATIENCE_SECONDS
    )
    s3.put_object(Bucket=bucket, Key="in/bad.jpg", Body=b"no picture")
    s3.put_object(Bucket=bucket, Key="in/a b.jpg", Body=jpeg(200, 100))
    (rejected,) = wait_until(lambda: running.images(state="rejected"), PATIENCE_SECONDS)
    (image,) = wait_until(lambda: running.images(state="ready"), PATIENCE_SECONDS)
    token = (running.home / "api-token").read_text().strip()
    headers = {**bearer(token), "X-Request-ID": "r-1", "traceparent": CALLER}
    with httpx.Client(base_url=running.api, headers=headers) as client:
        paths = (f"/images/{image['id']}", image["outputs"]["thumbnail"]["url"])
        answers = [client.get(path).headers for path in paths]
    wait_until(lambda: len([span for span in receiver.spans if span.trace == CALLER[3:35]]) == 2)
    assert stop(running, signal.SIGTERM) == 0
    found = {file.stem: file.read_text().splitlines() for file in logs.iterdir()}
    return Followed(found, image, rejected, answers, list(receiver.spans))
