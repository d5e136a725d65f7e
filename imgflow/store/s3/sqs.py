"""The SQS queue of the source's notifications: receive and delete messages, and explain errors.

What the messages say is read in `bucket_events`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from imgflow.errors import SettingsError, Trouble
from imgflow.store.s3.amazon_hosts import sqs_region
from imgflow.store.s3.store_errors import first_line

# Maximum number of messages in one SQS request.
REQUEST_MESSAGES = 10

ADVICE = {
    "AWS.SimpleQueueService.NonExistentQueue": "create it, or correct IMGFLOW_SQS_QUEUE_URL",
    "QueueDoesNotExist": "create it, or correct IMGFLOW_SQS_QUEUE_URL",
    **dict.fromkeys(
        ("AccessDenied", "AccessDeniedException", "403"),
        "allow sqs:ReceiveMessage and sqs:DeleteMessage on it, as `imgflow iam` prints it",
    ),
    "InvalidClientTokenId": "check AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "check AWS_SECRET_ACCESS_KEY",
    "ExpiredToken": "renew AWS_SESSION_TOKEN and its keys",
}


@dataclass(frozen=True)
class Message:
    """A message that was received and not deleted yet.

    Attributes:
        id: Message id, the same in every delivery.
        receipt: Handle that deletes this delivery.
    """

    id: str
    body: bytes
    receipt: str


class Queue(Protocol):
    """Where notifications wait. Both methods raise `Trouble` when the queue does not answer."""

    def receive(self) -> list[Message]:
        """Receive a bounded number of messages, which stay hidden from others for a while."""

    def delete(self, messages: Sequence[Message]) -> int:
        """Delete messages; return how many the queue failed to delete: they come again."""


class SqsQueue:
    """A queue of SQS, or of a compatible server."""

    def __init__(
        self, url: str, *, wait_seconds: int, most_messages: int, most_seconds: float
    ) -> None:
        """Make a client from the standard `AWS_*` variables; nothing is requested yet.

        Args:
            url: URL of the queue. Requests go to its host unless AWS_ENDPOINT_URL_SQS is set;
                AWS_ENDPOINT_URL may be that of an S3 server that has no queues.
            wait_seconds: How long the first request may wait if the queue is empty.
            most_messages: Approximate maximum number of messages that one `receive` returns.
            most_seconds: Approximate maximum duration of one `receive`.

        Raises:
            SettingsError: The variables do not make a valid client.
        """
        self.url = url
        self._wait_seconds = wait_seconds
        self._most_messages = most_messages
        self._most_seconds = most_seconds
        self._client = _client(url)

    def receive(self) -> list[Message]:
        """Receive until the queue is empty, or until one of the limits is reached."""
        messages: dict[str, Message] = {}
        until = time.monotonic() + self._most_seconds
        wait = self._wait_seconds
        while len(messages) < self._most_messages and time.monotonic() < until:
            received = self._request(wait)
            if not received:
                break
            # If a message comes twice within a call, the later receipt deletes it.
            messages.update((message.id, message) for message in received)
            wait = 0
        return list(messages.values())

    def delete(self, messages: Sequence[Message]) -> int:
        """Delete in batches of ten."""
        failed = 0
        for start in range(0, len(messages), REQUEST_MESSAGES):
            entries = [
                {"Id": str(number), "ReceiptHandle": message.receipt}
                for number, message in enumerate(messages[start : start + REQUEST_MESSAGES])
            ]
            answer = self._ask("delete_message_batch", Entries=entries)
            failed += len(answer.get("Failed", []))
        return failed

    def check(self) -> None:
        """Raise `Trouble` with the fix unless messages may be received and deleted.

        This hides and deletes no message: it names one that does not exist.
        """
        self._ask("receive_message", MaxNumberOfMessages=1, WaitTimeSeconds=0, VisibilityTimeout=0)
        none = {"Id": "0", "ReceiptHandle": "imgflow-doctor"}
        self._ask("delete_message_batch", Entries=[none])

    def _request(self, wait_seconds: int) -> list[Message]:
        answer = self._ask(
            "receive_message",
            MaxNumberOfMessages=REQUEST_MESSAGES,
            WaitTimeSeconds=wait_seconds,
        )
        return [
            Message(
                entry["MessageId"],
                entry["Body"].encode("utf-8", "surrogatepass"),
                entry["ReceiptHandle"],
            )
            for entry in answer.get("Messages", [])
        ]

    def _ask(self, operation: str, **arguments: Any) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = getattr(self._client, operation)(
                QueueUrl=self.url, **arguments
            )
        except ClientError as error:
            code = error.response["Error"]["Code"]
            advice = ADVICE.get(code, "it is tried again")
            raise Trouble(f"The queue {self.url} refused {operation}: {code}; {advice}.") from error
        except BotoCoreError as error:
            raise Trouble(
                f"The queue {self.url} does not answer ({first_line(error)}); check "
                "IMGFLOW_SQS_QUEUE_URL and AWS_ENDPOINT_URL_SQS. It is tried again."
            ) from error
        return answer


def _client(url: str) -> Any:
    import boto3  # takes 60 ms, which an instance without a queue saves
    from botocore.config import Config

    parts = urlsplit(url)
    amazon = sqs_region(parts.netloc)
    session = boto3.Session()
    region = amazon or session.region_name or "us-east-1"
    own_address = None if amazon else f"{parts.scheme}://{parts.netloc}"
    try:
        return session.client(
            "sqs",
            region_name=region,
            endpoint_url=os.environ.get("AWS_ENDPOINT_URL_SQS")
            or own_address
            or f"https://sqs.{region}.amazonaws.com{'.cn' if region.startswith('cn-') else ''}",
            config=Config(
                retries={"total_max_attempts": 2, "mode": "standard"},
                connect_timeout=3,
                read_timeout=10,
            ),
        )
    except (BotoCoreError, ValueError) as error:
        raise SettingsError(
            f"IMGFLOW_SQS_QUEUE_URL and the AWS_* variables do not describe a queue: "
            f"{first_line(error)}."
        ) from error
