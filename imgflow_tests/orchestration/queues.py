"""A project with a real queue, which is moto's, and who sends to it.

The bucket of hand-made messages is that of the S3 server of all other tests, since moto takes no
key with a newline.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from imgflow.assembly import build_resources
from imgflow.catalog.postgres.sensing import UnreadableMessages
from imgflow.orchestration.resources import QueueResource
from imgflow_tests.orchestration.messages import record
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


@dataclass
class QueueProject(Project):
    """A project with a queue."""

    queue: QueueResource = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.queue = WaitlessQueue(url=self.settings.sqs_queue_url)

    def take(self) -> dg.SensorResult:
        """One evaluation of the queue's sensor, as the daemon does it; nothing is launched."""
        resources = {**build_resources(self.settings), "queue": self.queue}
        context = dg.build_sensor_context(instance=self.instance, resources=resources)
        result = self.definitions.resolve_sensor_def("notifications")(context)
        assert isinstance(result, dg.SensorResult)
        return result

    def states(self) -> dict[str, str]:
        images = self.catalog.page(limit=1_000)
        images += self.catalog.page(limit=1_000, state="deleted")
        return {image.key: image.state for image in images}

    def unreadable(self) -> UnreadableMessages:
        return UnreadableMessages(self.catalog.engine, self.catalog.source)


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


def said(result: dg.SensorResult) -> str:
    """Why a tick asked for nothing."""
    assert isinstance(result.skip_reason, dg.SkipReason)
    return str(result.skip_reason.skip_message)
