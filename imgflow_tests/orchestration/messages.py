"""Messages as S3, EventBridge and SNS write them."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote_plus


def record(
    key: str,
    name: str = "ObjectCreated:Put",
    *,
    bucket: str = "uploads",
    source: str = "aws:s3",
    **values: Any,
) -> dict[str, Any]:
    """A record of S3; the key is encoded as AWS does, except for Ceph, which does not."""
    encoded = key if source == "ceph:s3" else quote_plus(key, safe="/")
    return raw_record(encoded, name, bucket=bucket, source=source, **values)


def raw_record(
    encoded_key: str,
    name: str = "ObjectCreated:Put",
    *,
    bucket: str = "uploads",
    source: str = "aws:s3",
    **values: Any,
) -> dict[str, Any]:
    """A record with the key just as it stands in the message."""
    return {
        "eventVersion": "2.1",
        "eventSource": source,
        "awsRegion": "eu-west-1",
        "eventTime": "2026-08-01T12:00:00.000Z",
        "eventName": name,
        "s3": {
            "s3SchemaVersion": "1.0",
            "bucket": {"name": bucket, "arn": f"arn:aws:s3:::{bucket}"},
            "object": {"key": encoded_key, **values},
        },
    }


def s3_event(*records: Any) -> str:
    return json.dumps({"Records": list(records)})


def sns(message: str) -> str:
    return json.dumps(
        {
            "Type": "Notification",
            "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
            "TopicArn": "arn:aws:sns:eu-west-1:123456789012:uploads",
            "Subject": "Amazon S3 Notification",
            "Message": message,
            "Timestamp": "2026-08-01T12:00:00.000Z",
        }
    )


def eventbridge(
    key: str, name: str = "Object Created", *, bucket: str = "uploads", **values: Any
) -> str:
    return json.dumps(
        {
            "version": "0",
            "id": "17793124-05d4-b198-2fde-7ededc63b103",
            "detail-type": name,
            "source": "aws.s3",
            "detail": {
                "version": "0",
                "bucket": {"name": bucket},
                "object": {"key": key, **values},
                "reason": "PutObject",
            },
        }
    )


def s3_test_event(bucket: str = "uploads") -> str:
    return json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": bucket})
